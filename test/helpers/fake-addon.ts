/**
 * The native module in TypeScript, for tests of what stands above it. It computes nothing: a test says what each step
 * brings, and sees what was asked. Use with `jest.mock('bindings', () => () => jest.requireActual('../helpers/fake-addon').fakeAddon)`.
 */
import type {
  NativeDelta,
  NativeEngine,
  NativeEngineConfig,
  NativeMemoryPlan,
  NativeModelInfo,
  NativeRequest,
  NativeStats,
  NativeStep,
  NativeVocabulary,
} from '../../types/addon';

/** A native error as the module throws it. */
export function nativeError(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

export class FakeEngine implements NativeEngine {
  readonly info: NativeModelInfo;
  readonly config: NativeEngineConfig;
  readonly #vocabulary: NativeVocabulary | null;
  readonly #onStep: (step: NativeStep) => void;

  /** Requests by id, in order of arrival. */
  readonly requests = new Map<number, NativeRequest>();
  /** Requests whose last deltas have not been sent. */
  readonly open = new Set<number>();
  readonly aborted: number[] = [];
  /** Tokens acknowledged, by request. */
  readonly acknowledged = new Map<number, number>();
  /** Every value that `setKeepAlive` was called with. */
  readonly keepAlive: boolean[] = [];
  numCloses = 0;
  /** Thrown by the next `addRequest`. */
  addRequestError: Error | null = null;
  /** Whether an abort is answered with last deltas, one turn of the event loop later. */
  answersAborts = true;
  statsOverrides: Partial<NativeStats> = {};
  numSteps = 0;

  constructor(
    config: NativeEngineConfig,
    vocabulary: NativeVocabulary | null,
    onStep: (step: NativeStep) => void,
    info: Partial<NativeModelInfo>,
  ) {
    this.config = config;
    this.#vocabulary = vocabulary;
    this.#onStep = onStep;
    this.info = {
      architecture: 'FakeForCausalLM',
      device: 'cpu',
      vocabSize: 4096,
      maxModelLen: config.maxModelLen || 2048,
      dtype: 'float32',
      quantization: 'none',
      kvCacheDtype: 'float32',
      blockSize: config.blockSize,
      numBlocks: 101,
      cpuIsa: 'scalar',
      eosTokenIds: Int32Array.of(1),
      ...info,
    };
  }

  addRequest(request: NativeRequest): number {
    if (this.addRequestError) throw this.addRequestError;
    const id = this.requests.size + 1;
    this.requests.set(id, request);
    this.open.add(id);
    return id;
  }

  abortRequest(id: number): void {
    this.aborted.push(id);
    if (this.answersAborts) setImmediate(() => this.endOpenSequences(id));
  }

  acknowledge(id: number, numTokens: number): void {
    this.acknowledged.set(id, (this.acknowledged.get(id) ?? 0) + numTokens);
  }

  decode(tokenIds: Int32Array, skipSpecialTokens: boolean): string {
    const { bytes, offsets, special } = this.#vocabulary!;
    const shown = [...tokenIds].filter((id) => !skipSpecialTokens || special[id] !== 1);
    return Buffer.concat(shown.map((id) => bytes.subarray(offsets[id], offsets[id + 1]))).toString();
  }

  stats(): NativeStats {
    return {
      numRunning: this.open.size,
      numWaiting: 0,
      numFreeBlocks: 75,
      numTotalBlocks: 100,
      prefixCacheQueries: 40,
      prefixCacheHits: 16,
      numPreemptions: 3,
      promptTokens: 11,
      generatedTokens: 22,
      steps: this.numSteps,
      stepSeconds: this.numSteps / 1000,
      callbacks: this.numSteps,
      lastStepAgeMs: 5,
      ranks: [],
      ...this.statsOverrides,
    };
  }

  setKeepAlive(keepAlive: boolean): void {
    this.keepAlive.push(keepAlive);
  }

  async close(): Promise<void> {
    this.numCloses++;
    this.open.clear();
    await new Promise((resolve) => setImmediate(resolve));
  }

  // What a test makes happen.

  /** One callback. What is left out is empty. */
  step(step: Partial<NativeStep>): void {
    this.numSteps++;
    this.#onStep({
      deltas: [],
      startedRequestIds: [],
      stepSeconds: Float64Array.of(0.001),
      stepTokens: Int32Array.of(1),
      ...step,
    });
  }

  /** One step that brings one delta. */
  emit(requestId: number, delta: Partial<NativeDelta> = {}): void {
    const index = delta.index ?? 0;
    if (delta.finishReason && index === this.requests.get(requestId)!.params.n - 1) this.open.delete(requestId);
    this.step({ deltas: [{ requestId, index, tokenIds: new Int32Array(0), text: '', logprob: 0, ...delta }] });
  }

  /** One token and its text. */
  token(requestId: number, text: string, delta: Partial<NativeDelta> = {}): void {
    this.emit(requestId, { tokenIds: Int32Array.of(100 + text.length), text, logprob: -0.5, ...delta });
  }

  endOpenSequences(id: number, finishReason: 'abort' | 'stop' = 'abort'): void {
    if (!this.open.delete(id)) return;
    for (let index = 0; index < this.requests.get(id)!.params.n; index++) this.emit(id, { index, finishReason });
  }

  /** The engine fails, and says so in its last callback. */
  fail(code: string, message: string): void {
    this.open.clear();
    this.step({ failure: { code, message } });
  }

  /** Resolves when this many requests have arrived. */
  async arrived(count: number): Promise<void> {
    while (this.requests.size < count) await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** What `bindings('heddle')` returns in a test. */
export const fakeAddon = {
  /** Every engine made, the last at the end. */
  engines: [] as FakeEngine[],
  /** Of engines to come. */
  nextInfo: {} as Partial<NativeModelInfo>,
  /** What the next `createEngine` or `planMemory` rejects with. */
  nextError: null as Error | null,
  planned: [] as NativeEngineConfig[],

  async createEngine(
    config: NativeEngineConfig,
    vocabulary: NativeVocabulary | null,
    onStep: (step: NativeStep) => void,
    onProgress: ((fraction: number) => void) | null,
  ): Promise<FakeEngine> {
    await new Promise((resolve) => setImmediate(resolve));
    this.throwNextError();
    onProgress?.(1);
    const engine = new FakeEngine(config, vocabulary, onStep, this.nextInfo);
    this.engines.push(engine);
    return engine;
  },

  async planMemory(config: NativeEngineConfig): Promise<NativeMemoryPlan> {
    this.throwNextError();
    this.planned.push(config);
    const rank = { weightBytes: 1000, kvCacheBytes: 200, activationBytes: 30 };
    return {
      ranks: [rank, rank],
      availableBytes: 2459,
      fits: false,
      kvCacheTokens: 5000,
      kvCacheBytesPerToken: 8,
      maxModelLen: 2048,
    };
  },

  throwNextError(): void {
    const error = this.nextError;
    this.nextError = null;
    if (error) throw error;
  },
};
