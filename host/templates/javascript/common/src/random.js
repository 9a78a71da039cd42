// A component is a snapshot of QuickJS, taken when the plugin is built, and Math.random() was seeded
// before that: every instance would begin with the same numbers, and a nonce could be replayed.
// Imported for its effect, ahead of everything that draws a number.

import random from "wasi:random/random@0.2.12";

// 64 random bits as a number from 0 to, but not including, 1. Whatever rounds up to 1 becomes 0.
Math.random = () => (Number(random.getRandomU64()) / 2 ** 64) % 1;
