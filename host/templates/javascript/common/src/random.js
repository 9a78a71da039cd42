// Gives each instance its own random numbers. A component is a snapshot of QuickJS, taken when the
// plugin is built, after Math.random() was seeded. Without this file, every instance would begin
// with the same numbers, and a nonce could be replayed. Import it before everything that draws a
// number.

import random from "wasi:random/random@0.2.12";

// 64 random bits as a number from 0 to, but not including, 1. A number that rounds up to 1 becomes
// 0.
Math.random = () => (Number(random.getRandomU64()) / 2 ** 64) % 1;
