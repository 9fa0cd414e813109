/**
 * Every export of the native module, nothing else. Only `lib/native/` sees these types.
 *
 * Values are complete and validated: the native side checks types and limits again, but knows no defaults. Errors are
 * thrown (or rejected) as plain `Error` objects with a `code` of lib/errors.ts, e.g. `'ERR_MODEL_FORMAT'`.
 *
 * @module
 */

/** See `EngineConfig`; everything is decided here, except what only the checkpoint knows. */
export interface NativeEngineConfig {
  model: string;
  device: 'auto' | 'cpu' | 'cuda';
  /** Of each rank; empty: rank i takes device i, round and round. GPUs only. */
  devices: Int32Array;
  gpuMemoryUtilization: number;
  communicator: 'auto' | 'local' | 'nccl';
  nccl: NativeNcclOptions;
  /** GPUs only. */
  customAllReduce: boolean;
  loadFormat: 'safetensors' | 'dummy';
  /** The path with which the names of this checkpoint's files of packed weights begin. `''`: none are kept. */
  packedWeights: string;
  dtype: 'auto' | 'float32' | 'bfloat16' | 'float16';
  quantization: 'auto' | 'none' | 'int8' | 'llm-int8' | 'w8a8';
  sparsity: 'auto' | 'none' | '2:4';
  /** `'bitsandbytes'`: GPUs only. */
  provider: 'heddle' | 'bitsandbytes';
  kvCacheDtype: 'auto' | 'float32' | 'bfloat16' | 'float16' | 'int8';
  /** 0: chosen by the engine. */
  kvCacheBytes: number;
  blockSize: number;
  /** 0: the checkpoint's. */
  maxModelLen: number;
  /** 0: the device's default. */
  maxNumSeqs: number;
  /** 0: the device's default. */
  maxNumBatchedTokens: number;
  maxNumWaiting: number;
  enablePrefixCaching: boolean;
  schedulingPolicy: 'fcfs' | 'priority';
  seed: number;
  /** -1: no limit. */
  maxLogprobs: number;
  tensorParallelSize: number;
  /** 0: the processors available over the ranks. */
  threads: number;
  timeoutMs: number;
  /** `''`: the best that this machine runs. */
  cpuIsa: string;
  /** Ends of sequence beside the config's, from `generation_config.json`. */
  eosTokenIds: Int32Array;
}

/** Of the engine's communicator where NCCL connects its ranks; -1 and `''` leave the choice to NCCL. */
export interface NativeNcclOptions {
  minCtas: number;
  maxCtas: number;
  cgaClusterSize: number;
  nvlsCtas: number;
  /** 0: default; 1: efficiency; 2: zero. */
  ctaPolicy: number;
  collnetEnable: number;
  trafficClass: number;
  channelsPerNetPeer: number;
  nvlinkCentricScheduling: number;
  netName: string;
  commName: string;
  /** Variables that must have been in the process's environment when it first used NCCL; `createEngine` rejects else. */
  environment: Record<string, string>;
}

/** Bytes of each token: token i is `bytes[offsets[i] .. offsets[i + 1])`. */
export interface NativeVocabulary {
  bytes: Uint8Array;
  /** One longer than `special`. */
  offsets: Uint32Array;
  /** 1 for special tokens. */
  special: Uint8Array;
}

/** See `SamplingParams`; `maxTokens` is already capped. */
export interface NativeSamplingParams {
  n: number;
  temperature: number;
  topP: number;
  topK: number;
  minP: number;
  presencePenalty: number;
  frequencyPenalty: number;
  repetitionPenalty: number;
  /** Null: derived from the engine's seed and the request's number. */
  seed: bigint | null;
  maxTokens: number;
  minTokens: number;
  ignoreEos: boolean;
  stop: string[];
  stopTokenIds: Int32Array;
  includeStopStrInOutput: boolean;
  /** -1: none; otherwise k, the vocabulary's size for all. */
  logprobs: number;
  promptLogprobs: number;
  /** Pairs of `logitBiasIds[i]` and `logitBiasValues[i]`. */
  logitBiasIds: Int32Array;
  logitBiasValues: Float32Array;
  allowedTokenIds: Int32Array;
  badWords: Int32Array[];
  /** `maxPatternSize` 0: off. */
  repetitionDetection: { maxPatternSize: number; minPatternSize: number; minCount: number };
  detokenize: boolean;
  skipSpecialTokens: boolean;
  streamInterval: number;
  finalOnly: boolean;
  skipReadingPrefixCache: boolean;
}

export interface NativeRequest {
  promptTokenIds: Int32Array;
  params: NativeSamplingParams;
  priority: number;
  cacheSalt: string;
}

export interface NativeLogprobs {
  k: number;
  tokenIds: Int32Array;
  logprobs: Float32Array;
  ranks: Int32Array;
}

/** What one sequence gained since its last delta. */
export interface NativeDelta {
  requestId: number;
  index: number;
  tokenIds: Int32Array;
  text: string;
  /** Sum of the log-probabilities of `tokenIds`. */
  logprob: number;
  logprobs?: NativeLogprobs;
  /** On the first delta of sequence 0. */
  promptLogprobs?: NativeLogprobs;
  /** On the first delta of sequence 0. */
  numCachedTokens?: number;
  finishReason?: 'stop' | 'length' | 'abort' | 'error';
  /** Stop string or id, or `'repetition'`. */
  stopReason?: string | number;
  /** With `finishReason` `'error'`. */
  error?: { code: string; message: string };
}

/** What the one callback of a step (or of several, when JavaScript was busy) brings. */
export interface NativeStep {
  /** In order. */
  deltas: NativeDelta[];
  /** Requests that a step worked on for the first time since the last call. */
  startedRequestIds: number[];
  /** Seconds of each step since the last call, and tokens it computed. */
  stepSeconds: Float64Array;
  stepTokens: Int32Array;
  /** The engine failed: every open request is over, and so is the engine. */
  failure?: { code: string; message: string };
}

export interface NativeModelInfo {
  architecture: string;
  /** `'cpu'` or `'cuda'`. */
  device: string;
  /** Width of the logits. */
  vocabSize: number;
  maxModelLen: number;
  dtype: string;
  /** How products are computed: `'none'`, `'int8'`, `'llm-int8'` or `'w8a8'`. */
  quantization: string;
  kvCacheDtype: string;
  blockSize: number;
  numBlocks: number;
  /** `'scalar'`, `'avx2'`, `'avx512'`, `'avx512_vnni'`, `'avx512_bf16'` or `'amx'`. */
  cpuIsa: string;
  eosTokenIds: Int32Array;
}

export interface NativeStats {
  numRunning: number;
  numWaiting: number;
  numFreeBlocks: number;
  numTotalBlocks: number;
  prefixCacheQueries: number;
  prefixCacheHits: number;
  numPreemptions: number;
  promptTokens: number;
  generatedTokens: number;
  steps: number;
  stepSeconds: number;
  /** Native callbacks into JavaScript so far. */
  callbacks: number;
  /** Milliseconds since the last step ended, or since creation. */
  lastStepAgeMs: number;
  ranks: NativeRankStats[];
}

export interface NativeRankStats {
  rank: number;
  numHeads: number;
  numKVHeads: number;
  weightBytes: number;
  weightsFromCache: boolean;
  kvCacheBytes: number;
  busySeconds: number;
  opsSeconds: number;
  communicationSeconds: number;
  deviceWaitSeconds: number;
  deviceIdleSeconds: number;
}

export interface NativeMemoryPlan {
  ranks: { weightBytes: number; kvCacheBytes: number; activationBytes: number }[];
  availableBytes: number;
  fits: boolean;
  kvCacheTokens: number;
  kvCacheBytesPerToken: number;
  maxModelLen: number;
}

/** Loads a model and starts its engine thread. `onStep` is called on the JavaScript thread, at most once a step. */
export function createEngine(
  config: NativeEngineConfig,
  vocabulary: NativeVocabulary | null,
  onStep: (step: NativeStep) => void,
  onProgress: ((fraction: number) => void) | null,
): Promise<NativeEngine>;

/** Reads `config.json` only. */
export function planMemory(config: NativeEngineConfig): Promise<NativeMemoryPlan>;

/** See `QuantizeOptions` and `PruneOptions`; everything is decided here. */
export interface NativeCompressionConfig {
  model: string;
  output: string;
  scheme: 'none' | 'int8' | 'w8a8';
  pruning: 'none' | 'magnitude' | 'wanda' | 'sparsegpt';
  /** Pruned matrices stay in the dense format. */
  dense: boolean;
  /** 0: off. */
  smooth: number;
  ignore: string[];
  /** Token ids that calibration runs through the model. */
  sequences: Int32Array[];
  /** 0: half of what is available. */
  memoryBytes: number;
  /** 0: the processors available. */
  threads: number;
  /** `''`: the best that this machine runs. */
  cpuIsa: string;
}

export interface NativeCompressionReport {
  numMatrices: number;
  numSparse: number;
  numPasses: number;
  sourceBytes: number;
  outputBytes: number;
  memoryBytes: number;
  /** What killed runs had left beside the output. */
  removed: string[];
}

export interface NativeCompression {
  /** Rejects with `ERR_CANCELLED` after `cancel()`. */
  done: Promise<NativeCompressionReport>;
  /** Nothing stays behind. */
  cancel(): void;
}

/** Makes a checkpoint smaller, on threads of its own. */
export function startCompression(
  config: NativeCompressionConfig,
  onProgress: ((fraction: number) => void) | null,
): NativeCompression;

/** A running engine. Obtained from `createEngine`; `new` throws. */
export class NativeEngine {
  private constructor();
  readonly info: NativeModelInfo;
  /** Queues a request and returns its id. Throws `ERR_QUEUE_FULL`, `ERR_ENGINE_CLOSED`, `ERR_ENGINE_FAILED`, `ERR_INVALID_ARGUMENT`. */
  addRequest(request: NativeRequest): number;
  /** Ends it within one step; its sequences' last deltas say `'abort'`. Unknown ids are ignored. */
  abortRequest(requestId: number): void;
  /** Says that the consumer took this many tokens; a request with too many untaken ones is paused. */
  acknowledge(requestId: number, numTokens: number): void;
  /** Text of ids on their own. */
  decode(tokenIds: Int32Array, skipSpecialTokens: boolean): string;
  stats(): NativeStats;
  /** Whether the engine keeps the event loop alive; the caller sets it while a request can go on. */
  setKeepAlive(keepAlive: boolean): void;
  /** Stops the engine thread and frees everything. Open requests end without further deltas. Resolves when all is freed; idempotent. */
  close(): Promise<void>;
}
