import { getEventListeners, getMaxListeners } from 'node:events';

import { EngineClosedError, EngineFailedError, InvalidArgumentError } from '../../lib/errors';
import { RequestStream, type StreamOptions } from '../../lib/streaming/generation-stream';
import type { SequenceDelta } from '../../lib/streaming/sequence-output';
import type { GenerationDelta, TokenLogprobs } from '../../types/index';

// Jest fails a test in whose time a rejection is handled by nobody.
afterEach(() => turn());

/** A stream and what it asked of its engine. */
class Harness {
  numAborts = 0;
  numEnds = 0;
  acknowledged: number[] = [];
  readonly stream: RequestStream;

  constructor(options: Partial<StreamOptions> = {}, { begun = true } = {}) {
    this.stream = new RequestStream({
      requestId: 'request-1',
      n: 1,
      outputKind: 'delta',
      signal: null,
      site: {},
      createdAt: performance.now(),
      onEnd: () => this.numEnds++,
      ...options,
    });
    if (begun) this.begin();
  }

  begin(): void {
    const abort = () => this.numAborts++;
    this.stream.begin({ abort, acknowledge: (count) => this.acknowledged.push(count) }, Int32Array.of(7, 8));
  }

  push(delta: Partial<SequenceDelta>): void {
    const nothing = { index: 0, tokenIds: new Int32Array(0), text: '', logprob: 0 };
    this.stream.push({ ...nothing, ...delta }, performance.now());
  }

  token(text: string, delta: Partial<SequenceDelta> = {}): void {
    this.push({ tokenIds: Int32Array.of(text.charCodeAt(0)), text, logprob: -1, ...delta });
  }

  end(finishReason: 'stop' | 'length' | 'abort' = 'stop', delta: Partial<SequenceDelta> = {}): void {
    this.push({ finishReason, ...delta });
  }

  get totalAcknowledged(): number {
    return this.acknowledged.reduce((sum, count) => sum + count, 0);
  }
}

const collect = async (stream: RequestStream): Promise<GenerationDelta[]> => {
  const deltas: GenerationDelta[] = [];
  for await (const delta of stream) deltas.push(delta);
  return deltas;
};
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('iterating', () => {
  it('yields what is new, and the end', async () => {
    const harness = new Harness();
    const collected = collect(harness.stream);
    harness.token('a');
    await turn();
    harness.token('b');
    harness.end('stop', { stopReason: 'x' });
    expect(await collected).toEqual([
      { index: 0, text: 'a', tokenIds: Int32Array.of(97) },
      { index: 0, text: 'b', tokenIds: Int32Array.of(98) },
      { index: 0, text: '', tokenIds: new Int32Array(0), finishReason: 'stop', stopReason: 'x' },
    ]);
    expect(harness.numEnds).toBe(1);
  });

  it('leaves out items without text and ids, but not ids without text', async () => {
    const harness = new Harness();
    harness.push({});
    harness.push({ tokenIds: Int32Array.of(5) });
    harness.push({ text: 'held back' });
    harness.token('z', { finishReason: 'length' });
    expect((await collect(harness.stream)).map(({ text, tokenIds }) => [text, tokenIds.length])).toEqual([
      ['', 1],
      ['held back', 0],
      ['z', 1],
    ]);
  });

  it('is for one consumer', async () => {
    const harness = new Harness();
    harness.end();
    await collect(harness.stream);
    expect(() => harness.stream[Symbol.asyncIterator]()).toThrow(InvalidArgumentError);
  });

  it('answers calls of next in order, however many wait', async () => {
    const harness = new Harness();
    const iterator = harness.stream[Symbol.asyncIterator]();
    const calls = [iterator.next(), iterator.next(), iterator.next()];
    harness.token('a');
    harness.token('b', { finishReason: 'stop' });
    const results = await Promise.all(calls);
    expect(results.map((result) => (result.done ? 'done' : result.value.text))).toEqual(['a', 'b', 'done']);
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });

  it('keeps n sequences apart and ends with the last of them', async () => {
    const harness = new Harness({ n: 2 });
    harness.token('a', { index: 1 });
    harness.token('b', { index: 0, finishReason: 'length' });
    harness.token('c', { index: 1, finishReason: 'stop' });
    const deltas = await collect(harness.stream);
    expect(deltas.map(({ index, text }) => [index, text])).toEqual([[1, 'a'], [0, 'b'], [1, 'c']]); // prettier-ignore
    const { outputs, usage } = await harness.stream.final();
    expect(outputs.map(({ index, text, finishReason }) => [index, text, finishReason])).toEqual([
      [0, 'b', 'length'],
      [1, 'ac', 'stop'],
    ]);
    expect(usage.completionTokens).toBe(3);
  });
});

describe('output kinds', () => {
  it("'cumulative' yields all so far, and joins what nobody took", async () => {
    const harness = new Harness({ outputKind: 'cumulative' });
    const iterator = harness.stream[Symbol.asyncIterator]();
    harness.token('a');
    expect((await iterator.next()).value).toMatchObject({ text: 'a' });
    harness.token('b');
    harness.token('c');
    const joined = (await iterator.next()).value as GenerationDelta;
    expect(joined).toMatchObject({ text: 'abc' });
    expect([...joined.tokenIds]).toEqual([97, 98, 99]);
    expect(harness.acknowledged).toEqual([1, 2]);
    harness.end('length');
    expect((await iterator.next()).value).toMatchObject({ text: 'abc', finishReason: 'length' });
    expect((await iterator.next()).done).toBe(true);
    expect([...joined.tokenIds]).toEqual([97, 98, 99]);
  });

  it("'final_only' yields one item a sequence", async () => {
    const harness = new Harness({ outputKind: 'final_only', n: 2 });
    harness.token('a');
    harness.token('b', { index: 1, finishReason: 'stop' });
    harness.token('c', { finishReason: 'length' });
    const deltas = await collect(harness.stream);
    expect(deltas.map(({ index, text, finishReason }) => [index, text, finishReason])).toEqual([
      [1, 'b', 'stop'],
      [0, 'ac', 'length'],
    ]);
  });
});

describe('final()', () => {
  const row = (id: number): TokenLogprobs => ({
    k: 1,
    tokenIds: Int32Array.of(id, id + 1),
    logprobs: Float32Array.of(-1, -2),
    ranks: Int32Array.of(1),
  });

  it('gives all that was generated, with or without iterating, any number of times', async () => {
    for (const iterate of [true, false]) {
      const harness = new Harness({ createdAt: performance.now() - 100 });
      const early = harness.stream.final();
      const collected = iterate ? collect(harness.stream) : undefined;
      harness.stream.markStarted(performance.now() - 60);
      harness.token('a', { logprobs: row(10), promptLogprobs: row(1), numCachedTokens: 2 });
      harness.token('b', { logprobs: row(20), finishReason: 'stop', stopReason: 42 });
      await collected;
      const output = await early;
      expect(output).toMatchObject({
        requestId: 'request-1',
        promptTokenIds: Int32Array.of(7, 8),
        promptLogprobs: row(1),
        usage: { promptTokens: 2, completionTokens: 2, cachedTokens: 2 },
      });
      expect(output.outputs).toEqual([
        {
          index: 0,
          text: 'ab',
          tokenIds: Int32Array.of(97, 98),
          cumulativeLogprob: -2,
          logprobs: {
            k: 1,
            tokenIds: Int32Array.of(10, 11, 20, 21),
            logprobs: Float32Array.of(-1, -2, -1, -2),
            ranks: Int32Array.of(1, 1),
          },
          finishReason: 'stop',
          stopReason: 42,
        },
      ]);
      const { queueMs, timeToFirstTokenMs, totalMs } = output.timing;
      expect(queueMs).toBeGreaterThanOrEqual(40);
      expect(timeToFirstTokenMs).toBeGreaterThanOrEqual(queueMs);
      expect(totalMs).toBeGreaterThanOrEqual(timeToFirstTokenMs);
      expect(await harness.stream.final()).toBe(output);
      expect(await harness.stream.text()).toBe('ab');
    }
  });

  it('before an iteration loses nothing: what came before is its first item', async () => {
    const harness = new Harness();
    const final = harness.stream.final();
    harness.token('a');
    harness.token('b');
    const collected = collect(harness.stream);
    harness.token('c', { finishReason: 'stop' });
    expect((await collected).map(({ text }) => text)).toEqual(['ab', 'c']);
    expect((await final).outputs[0]!.text).toBe('abc');
  });

  it('before an iteration that begins after the end leaves one item', async () => {
    const harness = new Harness();
    void harness.stream.final();
    harness.token('a');
    harness.token('b', { finishReason: 'length' });
    expect(await collect(harness.stream)).toEqual([
      { index: 0, text: 'ab', tokenIds: Int32Array.of(97, 98), finishReason: 'length' },
    ]);
  });
});

describe('backpressure', () => {
  it('acknowledges tokens as they are pulled, not as they come', async () => {
    const harness = new Harness();
    const iterator = harness.stream[Symbol.asyncIterator]();
    harness.token('a');
    harness.push({ tokenIds: Int32Array.of(1, 2, 3), text: 'bcd' });
    expect(harness.acknowledged).toEqual([]);
    expect(harness.stream.numUnacknowledged).toBe(4);
    await iterator.next();
    expect(harness.acknowledged).toEqual([1]);
    await iterator.next();
    expect(harness.acknowledged).toEqual([1, 3]);
    expect(harness.stream.numUnacknowledged).toBe(0);
  });

  it('acknowledges at once what someone waits for', () => {
    const harness = new Harness();
    void harness.stream[Symbol.asyncIterator]().next();
    harness.token('a');
    expect(harness.acknowledged).toEqual([1]);
  });

  it('acknowledges at once when final() was called and nobody iterates, also what came before', () => {
    const harness = new Harness();
    harness.token('a');
    harness.token('b');
    expect(harness.totalAcknowledged).toBe(0);
    void harness.stream.final();
    expect(harness.totalAcknowledged).toBe(2);
    harness.token('c');
    expect(harness.totalAcknowledged).toBe(3);
  });

  it('leaves the pace to an iteration that goes on beside final()', () => {
    const harness = new Harness();
    harness.stream[Symbol.asyncIterator]();
    void harness.stream.final();
    harness.token('a');
    expect(harness.totalAcknowledged).toBe(0);
  });

  it('acknowledges what an iteration skips', () => {
    const harness = new Harness({ outputKind: 'final_only' });
    harness.stream[Symbol.asyncIterator]();
    harness.token('a');
    expect(harness.totalAcknowledged).toBe(1);
  });
});

describe('aborting', () => {
  it('by abort() ends quietly, with what was generated until then', async () => {
    const harness = new Harness();
    harness.token('a');
    harness.stream.abort();
    harness.stream.abort();
    expect(harness.numAborts).toBe(1);
    expect(harness.stream.ended).toBe(false);
    harness.token('b');
    harness.end('abort');
    expect((await collect(harness.stream)).map(({ text, finishReason }) => [text, finishReason])).toEqual([
      ['a', undefined],
      ['b', undefined],
      ['', 'abort'],
    ]);
    expect((await harness.stream.final()).outputs[0]).toMatchObject({ text: 'ab', finishReason: 'abort' });
    harness.stream.abort();
    expect(harness.numAborts).toBe(1);
  });

  it('before the engine has the request ends it at once', async () => {
    const harness = new Harness({ n: 2 }, { begun: false });
    const collected = collect(harness.stream);
    harness.stream.abort();
    expect(harness.stream.ended).toBe(true);
    expect((await collected).map(({ index, finishReason }) => [index, finishReason])).toEqual([[0, 'abort'], [1, 'abort']]); // prettier-ignore
    const output = await harness.stream.final();
    expect(output.promptTokenIds).toHaveLength(0);
    expect(output.usage).toEqual({ promptTokens: 0, completionTokens: 0, cachedTokens: 0 });
    expect(harness.numEnds).toBe(1);
  });

  it('before the engine has the request shows once, also to an iteration that comes later', async () => {
    for (const collecting of [true, false]) {
      const harness = new Harness({}, { begun: false });
      if (collecting) void harness.stream.final();
      harness.stream.abort();
      expect(await collect(harness.stream)).toHaveLength(1);
    }
  });

  it('by leaving the loop is quiet, and takes what still comes', async () => {
    const harness = new Harness();
    harness.token('a');
    harness.token('b');
    for await (const _ of harness.stream) break;
    expect(harness.numAborts).toBe(1);
    expect(harness.totalAcknowledged).toBe(2);
    harness.token('c');
    harness.end('abort');
    expect(harness.totalAcknowledged).toBe(3);
    expect((await harness.stream.final()).outputs[0]).toMatchObject({ text: 'abc', finishReason: 'abort' });
  });

  it('by throwing in the loop is quiet, too', async () => {
    const harness = new Harness();
    harness.token('a');
    const loop = async () => {
      for await (const _ of harness.stream) throw new Error('user code');
    };
    await expect(loop()).rejects.toThrow('user code');
    expect(harness.numAborts).toBe(1);
  });

  it('by return() releases who waits in next()', async () => {
    const harness = new Harness();
    const iterator = harness.stream[Symbol.asyncIterator]();
    const waiting = iterator.next();
    await iterator.return!();
    expect(await waiting).toEqual({ done: true, value: undefined });
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });

  it('after the end does nothing', async () => {
    const controller = new AbortController();
    const harness = new Harness({ signal: controller.signal });
    harness.token('a', { finishReason: 'stop' });
    harness.stream.abort();
    controller.abort();
    expect(harness.numAborts).toBe(0);
    expect((await harness.stream.final()).outputs[0]!.finishReason).toBe('stop');
    expect(await collect(harness.stream)).toHaveLength(1);
  });
});

describe('a signal', () => {
  it('rejects iteration and final() with an AbortError that carries all that was generated', async () => {
    const controller = new AbortController();
    const harness = new Harness({ signal: controller.signal });
    harness.token('a');
    harness.token('b');
    controller.abort('because');
    expect(harness.numAborts).toBe(1);
    harness.token('c');
    harness.end('abort');
    const error = {
      name: 'AbortError',
      code: 'ERR_REQUEST_ABORTED',
      cause: 'because',
      output: { outputs: [{ text: 'abc', finishReason: 'abort' }] },
    };
    await expect(collect(harness.stream)).rejects.toMatchObject(error);
    await expect(harness.stream.final()).rejects.toMatchObject(error);
    await expect(harness.stream.text()).rejects.toMatchObject(error);
    expect(harness.totalAcknowledged).toBe(3);
  });

  it('rejects who waits for the next item', async () => {
    const controller = new AbortController();
    const harness = new Harness({ signal: controller.signal });
    const waiting = collect(harness.stream);
    controller.abort();
    harness.end('abort');
    await expect(waiting).rejects.toMatchObject({ name: 'AbortError' });
  });

  it('that is aborted already ends the request before it begins', async () => {
    const harness = new Harness({ signal: AbortSignal.abort() }, { begun: false });
    expect(harness.stream.ended).toBe(true);
    await expect(collect(harness.stream)).rejects.toMatchObject({ name: 'AbortError' });
    await expect(harness.stream.final()).rejects.toMatchObject({ output: { outputs: [{ finishReason: 'abort' }] } });
  });

  it('that throws when it is listened to is refused, by its name', () => {
    const cause = new TypeError('not implemented');
    const fail = (): never => {
      throw cause;
    };
    const deaf = { aborted: false, addEventListener: fail, removeEventListener: fail };
    const unreadable = Object.defineProperty({}, 'aborted', { get: fail });
    for (const signal of [deaf, deaf, unreadable]) {
      expect(() => new Harness({ signal: signal as unknown as AbortSignal })).toThrow(
        expect.objectContaining({
          code: 'ERR_INVALID_ARGUMENT',
          message: expect.stringContaining('options.signal') as string,
          cause,
        }),
      );
    }
  });

  it('reaches every request that shares it, whatever the abort of one throws', () => {
    const controller = new AbortController();
    const streams = [0, 1, 2].map(() => new Harness({ signal: controller.signal }, { begun: false }));
    const aborted: number[] = [];
    streams.forEach(({ stream }, i) => {
      const abort = (): void => {
        aborted.push(i);
        if (i === 0) throw new Error('gone');
      };
      stream.begin({ abort, acknowledge: () => undefined }, Int32Array.of(7));
    });
    controller.abort();
    expect(aborted).toEqual([0, 1, 2]);
  });

  it('is let go of at the end of the last request that shares it', () => {
    const { signal } = new AbortController();
    const harnesses = [new Harness({ signal }), new Harness({ signal })];
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    harnesses[0]!.end();
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    harnesses[1]!.end();
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  it('may be shared by many requests, with one listener and the limit of listeners that it had', () => {
    const controller = new AbortController();
    const before = getMaxListeners(controller.signal);
    const harnesses = Array.from({ length: 50 }, () => new Harness({ signal: controller.signal }));
    expect(getEventListeners(controller.signal, 'abort')).toHaveLength(1);
    expect(getMaxListeners(controller.signal)).toBe(before);
    harnesses[0]!.end();
    controller.abort();
    expect(harnesses.map(({ numAborts }) => numAborts)).toEqual([0, ...new Array<number>(49).fill(1)]);
  });
});

describe('a failure', () => {
  it('ends iteration after what is there, and final(), with the same error, which carries the output', async () => {
    const harness = new Harness();
    harness.token('a');
    const error = new EngineFailedError('broken');
    harness.stream.fail(error);
    const seen: string[] = [];
    const loop = async () => {
      for await (const { text } of harness.stream) seen.push(text);
    };
    await expect(loop()).rejects.toBe(error);
    await expect(harness.stream.final()).rejects.toBe(error);
    expect(seen).toEqual(['a']);
    expect(error.output).toMatchObject({ outputs: [{ text: 'a', finishReason: 'error' }] });
    expect(harness.numEnds).toBe(1);
  });

  it('of a closed engine ends sequences as aborted', async () => {
    const harness = new Harness();
    harness.stream.fail(new EngineClosedError());
    await expect(harness.stream.final()).rejects.toMatchObject({ output: { outputs: [{ finishReason: 'abort' }] } });
  });

  it('before the engine has the request carries no output', async () => {
    const harness = new Harness({}, { begun: false });
    harness.stream.fail(new InvalidArgumentError('no'));
    const error = await harness.stream.final().catch((reason: unknown) => reason);
    expect(Object.hasOwn(error as object, 'output')).toBe(false);
  });

  it('of one sequence is shown as its end, and rejects when all have ended', async () => {
    const harness = new Harness({ n: 2 });
    harness.push({ index: 0, finishReason: 'error', error: { code: 'ERR_REQUEST_FAILED', message: 'not finite' } });
    expect(harness.stream.ended).toBe(false);
    harness.token('b', { index: 1, finishReason: 'stop' });
    const seen: unknown[] = [];
    const loop = async () => {
      for await (const { finishReason } of harness.stream) seen.push(finishReason);
    };
    await expect(loop()).rejects.toMatchObject({ code: 'ERR_REQUEST_FAILED', message: 'not finite' });
    expect(seen).toEqual(['error', 'stop']);
    await expect(harness.stream.final()).rejects.toMatchObject({
      output: { outputs: [{ finishReason: 'error' }, { text: 'b', finishReason: 'stop' }] },
    });
  });

  it('after the end changes nothing', async () => {
    const harness = new Harness();
    harness.end();
    harness.stream.fail(new EngineFailedError('late'));
    expect((await harness.stream.final()).outputs[0]!.finishReason).toBe('stop');
    expect(harness.numEnds).toBe(1);
  });

  it('that nobody awaits ends no process', async () => {
    const harness = new Harness();
    void harness.stream.final();
    void harness.stream.text();
    void harness.stream[Symbol.asyncIterator]().next();
    harness.stream.fail(new EngineFailedError('broken'));
    await turn();
  });
});

describe('an end at which something throws', () => {
  afterEach(() => jest.restoreAllMocks());
  const outOfMemory = (): void => {
    jest.spyOn(Int32Array.prototype, 'slice').mockImplementation(() => {
      throw new RangeError('Array buffer allocation failed');
    });
  };

  it('rejects final() and iteration, when the output cannot be put together', async () => {
    const harness = new Harness();
    const collected = collect(harness.stream);
    harness.token('a');
    outOfMemory();
    harness.end();
    const error = { code: 'ERR_REQUEST_FAILED', cause: expect.any(RangeError) as unknown };
    await expect(harness.stream.final()).rejects.toMatchObject(error);
    await expect(collected).rejects.toMatchObject(error);
    expect(harness.numEnds).toBe(1);
  });

  it('keeps the error that the request fails with', async () => {
    const harness = new Harness();
    outOfMemory();
    const error = new EngineFailedError('broken');
    harness.stream.fail(error);
    await expect(harness.stream.final()).rejects.toBe(error);
    expect(harness.numEnds).toBe(1);
  });

  it('is settled whatever its owner throws', async () => {
    const harness = new Harness({
      onEnd: () => {
        throw new Error('books');
      },
    });
    harness.token('a', { finishReason: 'stop' });
    expect(await harness.stream.text()).toBe('a');
  });

  it('leaves who waits for an item that cannot be made to the end', async () => {
    const harness = new Harness({ outputKind: 'cumulative' });
    const waiting = harness.stream[Symbol.asyncIterator]().next();
    outOfMemory();
    expect(() => harness.token('a')).toThrow(RangeError);
    const error = new EngineFailedError('broken');
    harness.stream.fail(error);
    await expect(waiting).rejects.toBe(error);
  });
});

it('deltas that come too late, or for no sequence, are ignored', async () => {
  const harness = new Harness();
  harness.token('x', { index: 5 });
  harness.token('a', { finishReason: 'stop' });
  harness.token('b');
  expect((await harness.stream.final()).outputs.map(({ text }) => text)).toEqual(['a']);
});
