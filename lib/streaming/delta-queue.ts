/**
 * The queue between an engine and the one consumer of a stream.
 *
 * @module
 */

interface Waiter<T> {
  resolve: (result: IteratorResult<T, undefined>) => void;
  reject: (error: Error) => void;
}

/** Hands out items in order; whoever asks before there is one waits. When ended, and empty, it is done or rejects for good. */
export class DeltaQueue<Item, Out> {
  readonly #take: (item: Item) => Out;
  #items: Item[] = [];
  #waiters: Waiter<Out>[] = [];
  #end: { error: Error | null } | null = null;

  /** @param take - Makes of an item what the consumer gets, at the moment when it gets it. */
  constructor(take: (item: Item) => Out) {
    this.#take = take;
  }

  /** Items that nobody has taken. */
  get items(): readonly Item[] {
    return this.#items;
  }

  push(item: Item): void {
    const waiter = this.#waiters[0];
    if (!waiter) {
      this.#items.push(item);
      return;
    }
    // May throw, and then the waiter still waits for what comes, the end at the latest.
    const value = this.#take(item);
    this.#waiters.shift();
    waiter.resolve({ done: false, value });
  }

  /** Drops and returns the items that nobody has taken. */
  clear(): Item[] {
    const items = this.#items;
    this.#items = [];
    return items;
  }

  /** Ends the queue; with an error, every `next` that finds no item rejects with it. Only the first end counts. */
  end(error: Error | null = null): void {
    if (this.#end) return;
    this.#end = { error };
    for (const waiter of this.#waiters.splice(0)) this.#settle(waiter);
  }

  next(): Promise<IteratorResult<Out, undefined>> {
    const result = new Promise<IteratorResult<Out, undefined>>((resolve, reject) => {
      const item = this.#items.shift();
      if (item !== undefined) resolve({ done: false, value: this.#take(item) });
      else if (this.#end) this.#settle({ resolve, reject });
      else this.#waiters.push({ resolve, reject });
    });
    // Whoever drops this promise does not end the process; whoever awaits it still gets the error.
    result.catch(() => undefined);
    return result;
  }

  #settle({ resolve, reject }: Waiter<Out>): void {
    if (this.#end?.error) reject(this.#end.error);
    else resolve({ done: true, value: undefined });
  }
}
