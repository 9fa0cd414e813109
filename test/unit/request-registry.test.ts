import { EngineClosedError, EngineFailedError } from '../../lib/errors';
import { RequestRegistry, type RegistryListener } from '../../lib/engine/request-registry';
import type { RequestStream } from '../../lib/streaming/generation-stream';

const IDS = Int32Array.of(7, 8);

/** A registry with a listener that remembers, and requests 1, 2, … with the engine. */
class Harness {
  readonly registry = new RequestRegistry();
  readonly busy: boolean[] = [];
  readonly listener: RegistryListener = {
    onBusyChange: (busy) => this.busy.push(busy),
    onFailure: (failure) => this.registry.failAll(() => new EngineFailedError(String(failure))),
    onStep: () => undefined,
    onFirstToken: () => undefined,
    onNextToken: () => undefined,
    onRequestEnd: () => undefined,
  };
  readonly acknowledged: number[] = [];
  #lastId = 0;

  constructor() {
    this.registry.listener = this.listener;
  }

  open(): RequestStream {
    return this.registry.open({
      requestId: 'request',
      n: 1,
      outputKind: 'delta',
      signal: null,
      site: {},
      createdAt: performance.now(),
    });
  }

  admit(stream: RequestStream): void {
    const acknowledge = (count: number) => this.acknowledged.push(count);
    this.registry.admit(stream, ++this.#lastId, IDS, 5000, { abort: () => undefined, acknowledge });
  }

  admitted(): RequestStream {
    const stream = this.open();
    this.admit(stream);
    return stream;
  }

  deliver(requestId: number, numTokens: number, finishReason?: 'stop'): void {
    this.registry.dispatch({
      deltas: [
        { requestId, index: 0, tokenIds: new Int32Array(numTokens), text: '', logprob: 0, ...(finishReason && { finishReason }) }, // prettier-ignore
      ],
      startedRequestIds: [],
      stepSeconds: Float64Array.of(0.001),
      stepTokens: Int32Array.of(1),
    });
  }
}

describe('ending every request', () => {
  it('goes on with the others when the error of one cannot be made', async () => {
    const harness = new Harness();
    const streams = [harness.admitted(), harness.admitted(), harness.open()];
    let calls = 0;
    harness.registry.failAll(() => {
      if (++calls === 1) throw new RangeError('out of memory');
      return new EngineClosedError();
    });
    const codes = await Promise.all(
      streams.map((stream) => stream.final().catch((error: unknown) => (error as EngineFailedError).code)),
    );
    expect(codes).toEqual(['ERR_ENGINE_FAILED', 'ERR_ENGINE_CLOSED', 'ERR_ENGINE_CLOSED']);
    await harness.registry.whenIdle();
  });

  it('leaves nobody waiting when a listener throws', async () => {
    const harness = new Harness();
    harness.listener.onRequestEnd = () => {
      throw new Error('figures');
    };
    const streams = [harness.admitted(), harness.admitted()];
    harness.deliver(1, 1, 'stop');
    await streams[0]!.final();
    harness.registry.failAll(() => new EngineClosedError());
    await expect(streams[1]!.final()).rejects.toMatchObject({ code: 'ERR_ENGINE_CLOSED' });
    await harness.registry.whenIdle();
    expect(harness.busy).toEqual([true, false]);
  });
});

describe('being busy', () => {
  it('is to prepare or to run, and not to wait for a consumer', async () => {
    const harness = new Harness();
    const stream = harness.open();
    expect(harness.busy).toEqual([true]);
    harness.admit(stream);
    const iterator = stream[Symbol.asyncIterator]();
    harness.deliver(1, 600);
    harness.deliver(1, 424);
    expect(harness.busy).toEqual([true]);
    harness.deliver(1, 1);
    expect(harness.busy).toEqual([true, false]);
    expect(harness.registry.hasRunnable()).toBe(false);
    await iterator.next();
    expect(harness.busy).toEqual([true, false, true]);
    harness.deliver(1, 0, 'stop');
    expect(harness.busy).toEqual([true, false, true, false]);
  });

  it('goes on while one of several can run', () => {
    const harness = new Harness();
    harness.admitted();
    harness.deliver(1, 2000);
    harness.admitted();
    expect(harness.busy).toEqual([true, false, true]);
    harness.deliver(2, 1, 'stop');
    expect(harness.busy).toEqual([true, false, true, false]);
  });

  it('comes back only where the native side resumes: with half of it taken', async () => {
    const harness = new Harness();
    const iterator = harness.admitted()[Symbol.asyncIterator]();
    for (const count of [300, 300, 500]) harness.deliver(1, count);
    await iterator.next();
    expect(harness.registry.hasRunnable()).toBe(false);
    await iterator.next();
    expect(harness.registry.hasRunnable()).toBe(true);
  });

  it('is not kept by a paused request that ends', () => {
    const harness = new Harness();
    harness.admitted();
    harness.deliver(1, 2000);
    harness.deliver(1, 0, 'stop');
    harness.admitted();
    expect(harness.busy).toEqual([true, false, true]);
  });
});

it('collecting takes what comes for streams that nobody iterates, and loses nothing', async () => {
  const harness = new Harness();
  const [forgotten, iterated] = [harness.admitted(), harness.admitted()];
  iterated[Symbol.asyncIterator]();
  harness.deliver(1, 2000);
  harness.deliver(2, 100);
  harness.registry.collectAll();
  expect(harness.acknowledged).toEqual([2000]);
  harness.deliver(1, 5, 'stop');
  for await (const { tokenIds } of forgotten) expect(tokenIds).toHaveLength(2005);
});
