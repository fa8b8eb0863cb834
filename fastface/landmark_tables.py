"""Numbering of the landmarks and names of the blendshapes, as data."""

from __future__ import annotations

from typing import Final

POINT_COUNT: Final = 478
"""468 points of the face's surface, then the middle and four edge points of the right and the left iris."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


BLENDSHAPE_NAMES: Final = _words(
    """
    _neutral browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff
    cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight
    eyeLookInLeft eyeLookInRight eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight
    eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose
    mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel mouthLeft
    mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker mouthRight
    mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight
    mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight
    """
)
"""Order of `FaceLandmarks.blendshapes`. ARKit's names; *left* is the subject's left."""

LANDMARKS68: Final = (
    # 0-16 jaw, from the subject's right temple over the chin (8) to the left temple
    *(127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356),
    # 17-21 right brow from outside in, 22-26 left brow from inside out
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    # 27-30 bridge of the nose from above to the tip, 31-35 its base
    *(168, 197, 5, 4, 98, 97, 2, 326, 327),
    # 36-41 right eye, 42-47 left eye: corner, upper lid, corner, lower lid
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    # 48-59 outer lip line, 60-67 inner lip line, both from the right corner over the upper lip
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),
    *(78, 81, 13, 311, 308, 402, 14, 178),
)
"""For each of the 68 points of the ibug scheme (Sagonas et al. 2013), the landmark that stands for it.

Eyes, lips and nose are the same places of the face. The jaw is the rim of the 478 points, taken at steps as
even as they allow; the brows are their upper edge.
"""

BLENDSHAPE_POINTS: Final = _numbers(
    """
    0 1 4 5 6 7 8 10 13 14 17 21 33 37 39 40 46 52 53 54 55 58 61 63 65 66 67 70 78 80 81 82 84 87 88 91
    93 95 103 105 107 109 127 132 133 136 144 145 146 148 149 150 152 153 154 155 157 158 159 160 161
    162 163 168 172 173 176 178 181 185 191 195 197 234 246 249 251 263 267 269 270 276 282 283 284 285
    288 291 293 295 296 297 300 308 310 311 312 314 317 318 321 323 324 332 334 336 338 356 361 362 365
    373 374 375 377 378 379 380 381 382 384 385 386 387 388 389 390 397 398 400 402 405 409 415 454 466
    468 469 470 471 472 473 474 475 476 477
    """
)
"""The landmarks that the blendshape network reads, in its order."""

MIRROR478: Final = _numbers(
    """
    0 1 2 248 4 5 6 249 8 9 10 11 12 13 14 15 16 17 18 19 250 251 252 253 254 255 256 257 258 259 260
    261 262 263 264 265 266 267 268 269 270 271 272 273 274 275 276 277 278 279 280 281 282 283 284 285
    286 287 288 289 290 291 292 293 294 295 296 297 298 299 300 301 302 303 304 305 306 307 308 309 310
    311 312 313 314 315 316 317 318 319 320 321 322 323 94 324 325 326 327 328 329 330 331 332 333 334
    335 336 337 338 339 340 341 342 343 344 345 346 347 348 349 350 351 352 353 354 355 356 357 358 359
    360 361 362 363 364 365 366 367 368 369 370 371 372 373 374 375 376 377 378 379 151 152 380 381 382
    383 384 385 386 387 388 389 390 164 391 392 393 168 394 395 396 397 398 399 175 400 401 402 403 404
    405 406 407 408 409 410 411 412 413 414 415 416 417 418 195 419 197 420 199 200 421 422 423 424 425
    426 427 428 429 430 431 432 433 434 435 436 437 438 439 440 441 442 443 444 445 446 447 448 449 450
    451 452 453 454 455 456 457 458 459 460 461 462 463 464 465 466 467 3 7 20 21 22 23 24 25 26 27 28
    29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61
    62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 95
    96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 119 120 121
    122 123 124 125 126 127 128 129 130 131 132 133 134 135 136 137 138 139 140 141 142 143 144 145 146
    147 148 149 150 153 154 155 156 157 158 159 160 161 162 163 165 166 167 169 170 171 172 173 174 176
    177 178 179 180 181 182 183 184 185 186 187 188 189 190 191 192 193 194 196 198 201 202 203 204 205
    206 207 208 209 210 211 212 213 214 215 216 217 218 219 220 221 222 223 224 225 226 227 228 229 230
    231 232 233 234 235 236 237 238 239 240 241 242 243 244 245 246 247 473 476 475 474 477 468 471 470
    469 472
    """
)
"""For each landmark the one that a mirror turns it into; a point of the middle line, itself."""
