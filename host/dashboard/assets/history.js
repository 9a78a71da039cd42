// @ts-check
// What happened in the last 15 minutes: the counters of `GET /events`, and the rates between them.

/** @typedef {import("../types").Sample} Sample */

const WINDOW_MS = 15 * 60 * 1000;

export class History {
  /** @type {Sample[]} Oldest first. */
  #samples = [];

  /** @param {Sample} sample */
  add(sample) {
    // A line that says only that others were lost.
    if (sample.seq === undefined) return;
    const newest = this.newest;
    // After a restart of the gateway all counters begin again.
    if (newest && (sample.seq <= newest.seq || sample.messages < newest.messages || sample.logins < newest.logins)) {
      this.#samples = [];
    }
    this.#samples.push(sample);
    const oldest = Date.parse(sample.at) - WINDOW_MS;
    while (Date.parse(this.#samples[0].at) < oldest) this.#samples.shift();
  }

  get newest() {
    return this.#samples.at(-1);
  }

  get isEmpty() {
    return this.#samples.length === 0;
  }

  /** The times of all samples but the first, which has no rate. In seconds, as charts want them. */
  times() {
    return this.#samples.slice(1).map((sample) => Date.parse(sample.at) / 1000);
  }

  /** A number at these times. @param {(sample: Sample) => number} read */
  values(read) {
    return this.#samples.slice(1).map(read);
  }

  /**
   * By how much a counter grew in each second before these times.
   * @param {(sample: Sample) => number} read
   */
  rates(read) {
    return this.#samples.slice(1).map((sample, index) => {
      const before = this.#samples[index];
      const seconds = (Date.parse(sample.at) - Date.parse(before.at)) / 1000;
      return seconds > 0 ? Math.max(0, read(sample) - read(before)) / seconds : 0;
    });
  }

  /**
   * How much each counter of a group grew in all this time; the largest first, without those that did not grow.
   * @param {"denials" | "closed"} group
   * @returns {[string, number][]}
   */
  growth(group) {
    const [first, last] = [this.#samples[0], this.newest];
    if (!first || !last) return [];
    const grown = Object.entries(last[group]).map(([name, count]) => /** @type {[string, number]} */ ([name, count - (first[group][name] ?? 0)]));
    return grown.filter(([, count]) => count > 0).sort((one, other) => other[1] - one[1]);
  }
}

/** The sum of a group of counters. @param {Record<string, number>} counters */
export const sum = (counters) => Object.values(counters).reduce((total, count) => total + count, 0);
