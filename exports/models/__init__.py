"""Head models: what is made for them once."""
