/**
 * What a caller passes in. Every object is validated once, completed with defaults and frozen; an unknown or misspelt
 * key is refused in one sentence that names key, expectation and value.
 *
 * @module
 */

/** Number format of stored weights or of the KV cache. */
export type FloatType = 'float32' | 'bfloat16' | 'float16';

/** How the engine is loaded and run. */
export interface EngineConfig {
  /** Folder of a checkpoint in the Hugging Face layout: `config.json`, `tokenizer.json`, `*.safetensors`. */
  model: string;

  // Behaviour

  /** Where to run. Defaults to `'auto'`: CUDA devices when this build has the CUDA library (`npm run build:cuda`) and the machine as many devices as ranks, else the CPU. */
  device?: 'auto' | 'cpu' | 'cuda' | undefined;
  /** Format of the weights in memory. Defaults to `'auto'`: as the checkpoint stores them. On CPU activations are float32 in any case, on a GPU of this format. */
  dtype?: 'auto' | FloatType | undefined;
  /**
   * How products with the matrices of linear layers are computed.
   *
   * - `'none'`: in floats; weights that the checkpoint stores in 8 bits are widened to `dtype`.
   * - `'int8'`: weights in 8 bits with a scale for each output, activations as they are.
   * - `'w8a8'`: activations are rounded to 8 bits as well, each token by its own scale.
   * - `'llm-int8'`: as `'w8a8'`, but activations of the checkpoint's threshold (6 without one) or more stay as they are.
   *
   * Defaults to `'auto'`: as the checkpoint's authors mean it, `'llm-int8'` for bitsandbytes. A checkpoint that stores
   * 8-bit weights keeps those and leaves its other matrices alone; another one is rounded while it loads, every matrix
   * of a linear layer and, without rounding its input, the output head, with the embedding where they are one. What it costs in accuracy:
   * [quantization.md](../docs/quantization.md).
   */
  quantization?: 'auto' | 'none' | 'int8' | 'llm-int8' | 'w8a8' | undefined;
  /**
   * Whether matrices of linear layers are kept as the two values in each four that are not zero. `'2:4'` asks for it
   * where the checkpoint stores the zeros, and rejects where there are more than two values in four; it needs 16-bit or
   * 8-bit weights. `'none'` keeps the zeros. Defaults to `'auto'`: those that the checkpoint stores so.
   */
  sparsity?: 'auto' | 'none' | '2:4' | undefined;
  /**
   * Whose kernels compute the products of `quantization` `'llm-int8'`. `'bitsandbytes'` takes the functions of that
   * project's own library, on GPUs, for dense weights: to compare with, or for the results that others get; what it
   * needs and does otherwise: [quantization.md](../docs/quantization.md#bitsandbytes-own-kernels). Defaults to
   * `'heddle'`.
   */
  provider?: 'heddle' | 'bitsandbytes' | undefined;
  /**
   * Format of the KV cache. Defaults to `'auto'`: same as `dtype`.
   *
   * `'int8'` rounds every token's keys and values to 8 bits, each head by its own scale: half the bytes of a 16-bit
   * cache and four more for each key and each value, so that almost twice the tokens fit and long contexts are read in
   * less time, for a little accuracy: [decisions.md](../docs/decisions.md#kv-cache-layout).
   */
  kvCacheDtype?: 'auto' | FloatType | 'int8' | undefined;
  /**
   * Longest sequence, prompt and output together, in tokens. Defaults to what the checkpoint reaches
   * (`max_position_embeddings`, or more where its RoPE scaling extends that), or to what the KV cache holds if that is less.
   */
  maxModelLen?: number | undefined;
  /** Order of service. `'fcfs'` is first come, first served; `'priority'` takes the lowest {@link RequestOptions.priority} first. Defaults to `'fcfs'`. */
  schedulingPolicy?: 'fcfs' | 'priority' | undefined;
  /** Seed of requests that bring none: request number i of this engine draws from (seed, i). An integer from 0 to 2^53 - 1. Defaults to `0`. */
  seed?: number | undefined;
  /** Most tokens that `logprobs` and `promptLogprobs` of a request may list a position: an integer of at least 0, or `-1` for no limit. Each takes 8 bytes a position, so the whole vocabulary for a long prompt takes gigabytes and holds up the requests beside it. Defaults to `20`. */
  maxLogprobs?: number | undefined;
  /** Where weights come from. `'dummy'` makes random weights of the config's shape, for benchmarks; only `config.json` is needed then. Defaults to `'safetensors'`. */
  loadFormat?: 'safetensors' | 'dummy' | undefined;
  /** Ranks as threads of this process or as processes of their own. Defaults to `'thread'`; `'process'` is refused until it exists. */
  isolation?: 'thread' | 'process' | undefined;
  /** How the model is spread over ranks. Defaults to one rank. */
  parallel?: ParallelConfig | undefined;

  // Performance

  /** Bytes of KV cache, all ranks together. Defaults to what `maxNumSeqs` sequences of `maxModelLen` need; on CPU at most 4 GiB and at most half of the memory available after the weights, on GPUs at most all that `gpuMemoryUtilization` leaves. */
  kvCacheBytes?: number | undefined;
  /** Share of each GPU's memory that the engine may use, in (0, 1], less what others use already. Defaults to `0.9`; means nothing on CPU. */
  gpuMemoryUtilization?: number | undefined;
  /** Tokens in one KV-cache block: 16, 32, 64 or 128. Defaults to `16`. */
  blockSize?: number | undefined;
  /** Sequences in one step. An integer from 1 to 4096. Defaults to `64` on CPU and `256` on GPUs. */
  maxNumSeqs?: number | undefined;
  /** Tokens in one step, prompts and generated ones together; longer prompts are computed in chunks. An integer of at least `maxNumSeqs`. Defaults to `256` on CPU and `8192` on GPUs, or `maxNumSeqs` if that is more. */
  maxNumBatchedTokens?: number | undefined;
  /** Requests that may wait before {@link QueueFullError}. An integer of at least 1. Defaults to `4096`. */
  maxNumWaiting?: number | undefined;
  /** Whether requests reuse KV-cache blocks of earlier requests with the same beginning. Defaults to `true`. */
  enablePrefixCaching?: boolean | undefined;
  /**
   * Compute threads of each rank. An integer from 1 to 256. Defaults to the processors available ÷ ranks, at least 1; a
   * container's quota of processor time counts as so many processors.
   */
  threads?: number | undefined;
  /**
   * Folder in which packed weights are kept, so that later engines map them instead of packing again. The model's own
   * folder will do; one that is missing is made, in a folder that exists. Defaults to none: nothing is written.
   *
   * Each rank has a file of the size of its weights there, named after a hash of the checkpoint; `dtype` and the number of
   * ranks make other files. The first engine writes it before it is ready. A file that is missing, broken or of another
   * version is written anew; where that fails, for lack of space or because the folder is read-only, the engine goes on
   * without. Files of checkpoints that have changed stay behind, and a process that is killed while it writes leaves a
   * temporary file: any file may be deleted at any time.
   *
   * Whoever can write to the folder decides what the model computes, and whoever cuts a file there ends the processes
   * that use it; files are made for their owner alone. The checkpoint itself is compared by names, sizes, times of change,
   * headers and samples of its data, and must not change while an engine starts. Refused with `loadFormat: 'dummy'`;
   * without effect on GPUs, which take weights as they are stored.
   */
  packedWeightCache?: string | undefined;
  /** Called while weights load, with the fraction done in [0, 1]. Exceptions it throws are ignored. Not called when absent. */
  onProgress?: ((fraction: number) => void) | undefined;
}

/** How a model is spread over ranks. */
export interface ParallelConfig {
  /** Ranks that share every layer: 1, 2, 4 or 8, dividing the model's attention heads. Results on CPU do not depend on it. Defaults to `1`. */
  tensorParallelSize?: number | undefined;
  /** Stages of layers. Defaults to `1`; more is refused until it exists. */
  pipelineParallelSize?: number | undefined;
  /** Replicas. Defaults to `1`; more is refused until it exists. */
  dataParallelSize?: number | undefined;
  /** Experts spread over ranks. Defaults to `false`; `true` is refused until it exists. */
  enableExpertParallel?: boolean | undefined;
  /** GPU ordinals of the ranks, one a rank; several ranks may share a device. Defaults to device i for rank i. */
  devices?: number[] | undefined;
  /** How ranks reach each other. Defaults to `'auto'`: `'local'` (memory of this process) on CPU, `'nccl'` on GPUs. `'gloo'` is refused until it exists. */
  communicator?: 'auto' | 'local' | 'nccl' | 'gloo' | undefined;
  /**
   * Whether small sums over ranks, those of decoding steps, go through GPUs' memory in one kernel of our own, with the
   * norm that follows them, instead of through NCCL: 1 MiB with two ranks, 512 KiB with four, 256 KiB with eight. Where
   * GPUs do not reach each other's memory they never do. Without effect on CPU. Defaults to `true`.
   */
  customAllReduce?: boolean | undefined;
  /** Format on the wire between ranks. Defaults to `'native'`; others are refused until they exist. */
  collectiveDtype?: 'native' | 'int8' | 'int4' | undefined;
  /** Settings of NCCL, without effect where it is not used: with one rank, and where `device: 'auto'` ends on the CPU. Refused with `device: 'cpu'` and `communicator: 'local'`. Each defaults to NCCL's own choice. */
  nccl?: NcclOptions | undefined;
  /**
   * Deadline of every wait of one rank for another or for its GPU, in milliseconds, from 100 to 3,600,000. Defaults to
   * `60000`.
   */
  timeoutMs?: number | undefined;
}

/**
 * Settings of NCCL, which connects ranks on GPUs; each defaults to NCCL's own choice.
 *
 * Those of the communicator apply to the engine's own. The others NCCL takes from its environment alone, which it reads
 * when it is first used in a process: they are of all engines in the process. `Engine.create` puts them into
 * `process.env`, where they stay unless it rejects, for child processes too. It rejects with
 * {@link InvalidArgumentError} where one could not take effect: the process has used NCCL already with another value or
 * with none, or this is a worker thread, whose `process.env` is a copy, and the process was started without the variable.
 *
 * NCCL lets its environment variables override a communicator's settings, so an option of either kind is refused beside a
 * variable that says otherwise.
 */
export interface NcclOptions {
  // Of the engine's communicator

  /** Fewest thread blocks of a collective, which NCCL used to call channels (`minCTAs`). From 1 to 64, at most `maxCtas`. */
  minCtas?: number | undefined;
  /** Most thread blocks, or channels, of a collective (`maxCTAs`). From 1 to 64. For more than two ranks on one device, defaults to `4`. */
  maxCtas?: number | undefined;
  /** Thread blocks of a cluster. From 0 to 8. */
  cgaClusterSize?: number | undefined;
  /** Thread blocks of a collective that the NVLink switch reduces (`nvlsCTAs`). From 1 to 64. */
  nvlsCtas?: number | undefined;
  /** `'efficiency'` takes few thread blocks, `'zero'` copy engines instead of them where possible (`CTAPolicy`). */
  ctaPolicy?: 'default' | 'efficiency' | 'zero' | undefined;
  /** Whether InfiniBand switches reduce. */
  collnetEnable?: boolean | undefined;
  /** Service level (InfiniBand) or type of service (RoCE) of the network's packets. At least 0. */
  trafficClass?: number | undefined;
  /** Channels to a peer across the network (`nChannelsPerNetPeer`). From 1 to 64; NCCL 2.28. */
  channelsPerNetPeer?: number | undefined;
  /** Whether transfers are scheduled to use NVLink evenly (`nvlinkCentricSched`). NCCL 2.28. */
  nvlinkCentricScheduling?: boolean | undefined;
  /** Network module: `'IB'`, `'Socket'` or a plug-in's. 1 to 128 printable ASCII characters without spaces. */
  netName?: string | undefined;
  /** Name of the communicator in NCCL's logs. 1 to 128 printable ASCII characters without spaces. */
  commName?: string | undefined;

  // Of the process

  /** Algorithm of the all-reduce (`NCCL_ALGO`). One that the devices cannot run fails the first step with {@link RankFailedError}. */
  algorithm?: 'ring' | 'tree' | 'nvls' | undefined;
  /** Protocol of the all-reduce (`NCCL_PROTO`). As with `algorithm`, one that cannot be had fails the first step; `'ll128'` on devices that NCCL would not use it on may corrupt data. */
  protocol?: 'simple' | 'll' | 'll128' | undefined;
  /** Bytes of the buffer between two devices, of each channel (`NCCL_BUFFSIZE`). A power of two from 65,536 to 268,435,456. */
  bufferBytes?: number | undefined;
  /** Network interfaces, as NCCL writes them: prefixes such as `'eth'` or `'^docker'`, or `'=eth0'` (`NCCL_SOCKET_IFNAME`). */
  socketInterface?: string | undefined;
  /** InfiniBand devices, as NCCL writes them: `'mlx5'`, `'=mlx5_0:1'` (`NCCL_IB_HCA`). */
  ibDevices?: string | undefined;
  /** How far apart devices may be to reach each other's memory: not at all, over NVLink, one PCI switch, several, the host bridge of a NUMA node, or across them (`NCCL_P2P_LEVEL`). */
  p2pLevel?: 'loc' | 'nvl' | 'pix' | 'pxb' | 'phb' | 'sys' | undefined;
  /** Whether NVLink switches may reduce (`NCCL_NVLS_ENABLE`). */
  nvls?: boolean | undefined;
  /** What NCCL writes to standard output (`NCCL_DEBUG`). */
  debug?: 'version' | 'warn' | 'info' | 'trace' | undefined;
}

/**
 * What to generate from: text, or token ids that are used as they are. Text gets the tokenizer's special tokens, such as
 * a beginning-of-sequence id, and a special token's name inside it (`<|end|>`) becomes that token, as in Hugging Face's
 * libraries. It must be well-formed Unicode of at most 4 Mi characters. A prompt has at least one token and leaves room
 * for one in `maxModelLen`.
 */
export type Prompt = string | TextPrompt | TokensPrompt;

/** A prompt as text. */
export interface TextPrompt {
  /** The same as the plain string. */
  text: string;
}

/** A prompt as token ids. */
export interface TokensPrompt {
  /** Integers from 0 to the vocabulary's size less one. An array, a typed array or the like; copied. */
  tokenIds: ArrayLike<number>;
}

/** One turn of a conversation, as the checkpoint's chat template takes it. */
export interface ChatMessage {
  /** Who speaks; usually `'system'`, `'user'` or `'assistant'`. */
  role: string;
  /** What they say. Special tokens' names in it become special tokens, unless the template takes them out. */
  content: string;
}

/** Beside the prompt and how to sample. */
export interface RequestOptions {
  /** Aborts the request; iteration and `final()` then reject with `RequestAbortedError`. */
  signal?: AbortSignal | undefined;
  /** Lower runs first under `schedulingPolicy: 'priority'`; refused under `'fcfs'` unless 0. An integer in 32 bits. Defaults to `0`. */
  priority?: number | undefined;
  /** Cached prefixes are shared only among requests of the same salt: 1 to 128 printable ASCII characters. Defaults to none. */
  cacheSalt?: string | undefined;
  /** A label for logs: 1 to 128 printable ASCII characters. It identifies nothing. Defaults to one made by the engine. */
  requestId?: string | undefined;
}

/** {@link RequestOptions} and how to apply the chat template. */
export interface ChatOptions extends RequestOptions {
  /** Whether the prompt ends with the beginning of an assistant's turn. Defaults to `true`. */
  addGenerationPrompt?: boolean | undefined;
  /** Whether the last message is left open for the model to continue, instead of starting a turn. Excludes `addGenerationPrompt: true`. Defaults to `false`. */
  continueFinalMessage?: boolean | undefined;
}

/** How `encode` treats text. */
export interface EncodeOptions {
  /** Whether the tokenizer adds its special tokens, such as a beginning-of-sequence id. Defaults to `true`. */
  addSpecialTokens?: boolean | undefined;
}

/** How `decode` treats ids. */
export interface DecodeOptions {
  /** Whether special tokens give no text. Defaults to `true`. */
  skipSpecialTokens?: boolean | undefined;
}

/** How `close` ends an engine. */
export interface CloseOptions {
  /**
   * Whether accepted requests run to their end first. New ones are refused at once. A stream that is being iterated is
   * waited for, so its own loop must not await this. Defaults to `false`: they end with `EngineClosedError`.
   */
  drain?: boolean | undefined;
  /** With `drain`, after this many milliseconds the rest is ended as without. Defaults to no limit. */
  timeoutMs?: number | undefined;
}

/**
 * How a request samples, and when it stops. Names, defaults and meaning follow vLLM's `SamplingParams`, except that
 * `maxTokens` defaults to what is left of `maxModelLen`. Where the checkpoint has a `generation_config.json`, its
 * `temperature`, `top_p`, `top_k`, `min_p`, `repetition_penalty` and `max_new_tokens` are the defaults instead.
 */
export interface SamplingParams {
  /** Sequences for one prompt, from 1 to 16. The prompt is computed once. Defaults to `1`. */
  n?: number | undefined;
  /** Softmax temperature, from 0 to 100; `0` always takes the most likely token, whatever `topP`, `topK` and `minP` say. Below 0.01 it counts as 0.01. Defaults to `1`. */
  temperature?: number | undefined;
  /** Keeps the most likely tokens that together reach this probability, in (0, 1]. Defaults to `1`: all. */
  topP?: number | undefined;
  /** Keeps this many most likely tokens. An integer of at least 0; `0` or `-1` keeps all. Defaults to `0`. */
  topK?: number | undefined;
  /** Keeps tokens of at least this fraction of the best one's probability, in [0, 1]. Defaults to `0`: all. */
  minP?: number | undefined;
  /** Subtracted from the logit of every token generated before, in [-2, 2]. Defaults to `0`. */
  presencePenalty?: number | undefined;
  /** The same, times how often it was generated, in [-2, 2]. Defaults to `0`. */
  frequencyPenalty?: number | undefined;
  /** Divides positive and multiplies negative logits of tokens in prompt or output, in (0, 10]. Defaults to `1`: off. */
  repetitionPenalty?: number | undefined;
  /** Seed of this request's draws: an integer from 0 to 2^53 - 1, or a bigint below 2^64. The same seed, prompt and parameters give the same tokens, whatever runs beside. Defaults to one derived from the engine's seed. */
  seed?: number | bigint | undefined;
  /** Generated tokens at most, at least 1; more than fits is capped. Defaults to the checkpoint's `max_new_tokens`, else to what is left of `maxModelLen`. */
  maxTokens?: number | undefined;
  /** No end before this many generated tokens. An integer from 0 to `maxTokens`. Defaults to `0`. */
  minTokens?: number | undefined;
  /** Whether to go on after the model's end-of-sequence token. Defaults to `false`. */
  ignoreEos?: boolean | undefined;
  /** Strings that end the output: one, or up to 16 of 1 to 256 bytes. The output ends before the first. Defaults to none. */
  stop?: string | string[] | undefined;
  /** Token ids that end the output, up to 1024. Defaults to none beside the model's end-of-sequence ids. */
  stopTokenIds?: number[] | undefined;
  /** Whether the output includes the stop string that ended it. Defaults to `false`. */
  includeStopStrInOutput?: boolean | undefined;
  /** Log-probabilities of the chosen and the k best tokens at each position: from 0 to the engine's `maxLogprobs`, or `-1` for the whole vocabulary where that allows it. Defaults to none. */
  logprobs?: number | undefined;
  /** The same for the prompt's tokens after the first. Prefix hits are not used then. Defaults to none. */
  promptLogprobs?: number | undefined;
  /** Added to the logits of these ids: up to 1024 numbers in [-100, 100]. Defaults to none. */
  logitBias?: Record<number, number> | Map<number, number> | undefined;
  /** Only these ids may be generated: 1 to 1,048,576. Defaults to all. */
  allowedTokenIds?: number[] | undefined;
  /** Words that must not be generated, as strings: up to 256. Each is banned as it is and with a space before it. Defaults to none. */
  badWords?: string[] | undefined;
  /** Ends a sequence (finish reason `'stop'`, stop reason `'repetition'`) whose tail repeats itself. Defaults to off. */
  repetitionDetection?: RepetitionDetection | undefined;
  /** Tokens that a reasoning model may think before it has to answer. Refused until it exists. */
  reasoningBudget?: number | undefined;
  /** Whether text is made; without it deltas carry ids only, and `stop` is refused. Defaults to `true`. */
  detokenize?: boolean | undefined;
  /** Whether special tokens are left out of the text. Defaults to `true`. */
  skipSpecialTokens?: boolean | undefined;
  /** Accepted as in vLLM, without effect: it is about tokenizers that put spaces between the tokens they decode, and of those that are read here (byte-level and SentencePiece) none does: every token brings its own bytes. Defaults to `true`. */
  spacesBetweenSpecialTokens?: boolean | undefined;
  /** What a stream yields: `'delta'` what is new, `'cumulative'` all so far, `'final_only'` one item at the end. Defaults to `'delta'`. */
  outputKind?: 'delta' | 'cumulative' | 'final_only' | undefined;
  /** Tokens between two items of a stream; the first comes at once. An integer from 1 to 1024. Defaults to `1`. */
  streamInterval?: number | undefined;
  /** `'skip'` does not look for cached prefixes. Defaults to `'use'`. */
  prefixCache?: 'use' | 'skip' | undefined;
}

/** When a sequence counts as caught in a loop: some pattern of p tokens, minPatternSize ≤ p ≤ maxPatternSize, stands minCount times in a row at its end. */
export interface RepetitionDetection {
  /** An integer of at least 1 and at most 256. */
  maxPatternSize: number;
  /** An integer from 1 to `maxPatternSize`. Defaults to `1`. */
  minPatternSize?: number | undefined;
  /** An integer from 2 to 256. */
  minCount: number;
}
