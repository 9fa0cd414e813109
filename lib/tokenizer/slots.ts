/**
 * Work that waits for its turn.
 *
 * @module
 */

/** Runs at most so many pieces of asynchronous work at once; the others begin in the order in which they came. */
export class Slots {
  #free: number;
  /** What begins each, in the order in which they came. */
  readonly #waiting = new Set<() => void>();

  constructor(count: number) {
    this.#free = count;
  }

  /**
   * Settles as the work does.
   *
   * @param signal - Work that has not begun when this is aborted is dropped, and rejects with the signal's reason.
   */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    if (this.#free > 0) this.#free--;
    else await this.#turn(signal);
    try {
      return await work();
    } finally {
      const [next] = this.#waiting;
      if (next) next();
      else this.#free++;
    }
  }

  /** Resolves when a slot is given on to the caller. */
  #turn(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.delete(begin);
        signal?.removeEventListener('abort', drop);
      };
      const begin = (): void => {
        leave();
        resolve();
      };
      const drop = (): void => {
        leave();
        reject(signal?.reason as Error);
      };
      this.#waiting.add(begin);
      signal?.addEventListener('abort', drop);
    });
  }
}
