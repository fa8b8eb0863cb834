// Compiler and target macros shared by every op. The same maths compiles for host lanes and for a CUDA thread.
#pragma once

#if defined(__CUDACC__)
#define FF_HD __host__ __device__ __forceinline__
#else
#define FF_HD inline __attribute__((always_inline))
#endif

#define FF_INLINE inline __attribute__((always_inline))
#define FF_RESTRICT __restrict__

// The build compiles csrc/ops once per instruction set and names the level here; symbols of different levels never
// meet because they live in different inline namespaces.
#ifndef FF_ISA
#define FF_ISA baseline
#endif

#define FF_CONCAT_(a, b) a##b
#define FF_CONCAT(a, b) FF_CONCAT_(a, b)
#define FF_STRING_(a) #a
#define FF_STRING(a) FF_STRING_(a)
