import { getEventListeners } from 'node:events';

import { Slots } from '../../lib/tokenizer/slots';

/** Work that ends when the test says so. */
function controlled() {
  const running: number[] = [];
  const started: number[] = [];
  const ends = new Map<number, (error?: Error) => void>();
  const work = (id: number) => () =>
    new Promise<number>((resolve, reject) => {
      started.push(id);
      running.push(id);
      ends.set(id, (error) => {
        running.splice(running.indexOf(id), 1);
        if (error) reject(error);
        else resolve(id);
      });
    });
  return { running, started, work, end: (id: number, error?: Error) => ends.get(id)!(error) };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('slots', () => {
  it('run as many at once as there are, the others in order', async () => {
    const { running, started, work, end } = controlled();
    const slots = new Slots(2);
    const results = [1, 2, 3, 4].map((id) => slots.run(work(id)));
    expect(running).toEqual([1, 2]);
    end(2);
    await turn();
    expect(running).toEqual([1, 3]);
    end(1);
    await turn();
    end(4);
    end(3);
    expect(await Promise.all(results)).toEqual([1, 2, 3, 4]);
    expect(started).toEqual([1, 2, 3, 4]);
  });

  it('are given on by work that fails, whose error is its own', async () => {
    const { work, end } = controlled();
    const slots = new Slots(1);
    const failing = slots.run(work(1));
    const next = slots.run(work(2));
    const throwing = slots.run(() => {
      throw new Error('at once');
    });
    end(1, new Error('later'));
    await expect(failing).rejects.toThrow('later');
    await turn();
    end(2);
    expect(await next).toBe(2);
    await expect(throwing).rejects.toThrow('at once');
    const last = slots.run(work(3));
    end(3);
    expect(await last).toBe(3);
  });

  it('drop at once what waits for nobody any more, and never begin it', async () => {
    const { started, work, end } = controlled();
    const slots = new Slots(1);
    const [unwanted, kept] = [new AbortController(), new AbortController()];
    const first = slots.run(work(1), unwanted.signal);
    const dropped = [slots.run(work(2), unwanted.signal), slots.run(work(3), unwanted.signal)];
    const last = slots.run(work(4), kept.signal);
    unwanted.abort();
    for (const result of dropped) await expect(result).rejects.toBe(unwanted.signal.reason);
    await expect(slots.run(work(5), unwanted.signal)).rejects.toBe(unwanted.signal.reason);
    expect(getEventListeners(unwanted.signal, 'abort')).toEqual([]);
    end(1);
    expect(await first).toBe(1);
    await turn();
    expect(getEventListeners(kept.signal, 'abort')).toEqual([]);
    end(4);
    expect(await last).toBe(4);
    expect(started).toEqual([1, 4]);
  });
});
