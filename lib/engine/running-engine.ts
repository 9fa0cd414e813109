/**
 * A loaded model with its requests: what stands behind an {@link Engine} once its arguments are checked.
 *
 * @module
 */
import path from 'node:path';

import type { EngineHealth, EngineStats } from '../../types/outputs';
import { checkPromptLength } from '../config/prompt';
import type { ResolvedEngineConfig } from '../config/engine-config';
import { enterNcclEnvironment } from '../config/nccl-options';
import type { ResolvedRequestOptions } from '../config/request-options';
import type { ResolvedSamplingParams } from '../config/sampling-params';
import {
  EngineClosedError,
  EngineFailedError,
  errorFromNative,
  InvalidArgumentError,
  QueueFullError,
  withStack,
  type CallSite,
  type HeddleError,
} from '../errors';
import { EngineMetrics } from '../metrics/engine-metrics';
import { loadBinding, type NativeEngine, type NativeModelInfo, type NativeStats } from '../native/binding';
import { callNative, callNativeAsync } from '../native/native-error';
import type { RequestStream } from '../streaming/generation-stream';
import { findBadWords } from '../tokenizer/bad-words';
import type { Tokenizer } from '../tokenizer/tokenizer';
import { loadCheckpoint, type Checkpoint } from './checkpoint';
import { toEngineStats, toNativeConfig, toNativeParams } from './native-values';
import { digestPackedWeights, dropIfChanged, placePackedWeights } from './packed-weights';
import { RequestRegistry } from './request-registry';

/** Gets the ids of a prompt off the JavaScript thread; what has not begun when the signal is aborted never does. */
export type PromptReader = (signal: AbortSignal) => Promise<Int32Array>;

/** A checked request. */
export interface Submission {
  readonly prompt: Int32Array | PromptReader;
  readonly params: ResolvedSamplingParams;
  readonly options: ResolvedRequestOptions;
  readonly site: CallSite;
}

/** All calls on the JavaScript thread. */
export class RunningEngine {
  readonly config: ResolvedEngineConfig;
  readonly checkpoint: Checkpoint;
  readonly info: NativeModelInfo;
  readonly metrics: EngineMetrics;
  readonly #native: NativeEngine;
  readonly #requests: RequestRegistry;
  #lastStats: NativeStats;
  #failure: HeddleError | null = null;
  #closing: Promise<void> | null = null;
  #stopDraining!: () => void;
  #isClosed = false;
  #numRequests = 0;

  private constructor(
    config: ResolvedEngineConfig,
    checkpoint: Checkpoint,
    native: NativeEngine,
    requests: RequestRegistry,
  ) {
    this.config = config;
    this.checkpoint = checkpoint;
    this.info = native.info;
    this.#native = native;
    this.#requests = requests;
    this.#lastStats = native.stats();
    this.metrics = new EngineMetrics({
      modelName: path.basename(config.model),
      maxModelLen: this.info.maxModelLen,
      cacheConfig: {
        block_size: this.info.blockSize,
        cache_dtype: this.info.kvCacheDtype,
        enable_prefix_caching: config.enablePrefixCaching,
        // vLLM's name for the blocks that the model computes with, on every device.
        num_gpu_blocks: this.info.numBlocks,
      },
      readStats: () => ({ ...this.stats(), callbacks: this.#readStats().callbacks }),
    });
    requests.listener = {
      onBusyChange: (busy) => native.setKeepAlive(busy),
      onFailure: (failure) => this.#fail(failure),
      onStep: (seconds, numTokens) => this.metrics.observeStep(seconds, numTokens),
      onFirstToken: (seconds) => this.metrics.observeFirstToken(seconds),
      onNextToken: (seconds) => this.metrics.observeNextToken(seconds),
      onRequestEnd: (output, maxTokens) => this.metrics.observeRequest(output, maxTokens),
    };
  }

  /** Loads a model. Nothing stays behind when it rejects. */
  static async start(config: ResolvedEngineConfig, site: CallSite): Promise<RunningEngine> {
    const [checkpoint, digest] = await Promise.all([loadCheckpoint(config.model), digestPackedWeights(config)]);
    const packedWeights = await placePackedWeights(config, digest);
    const requests = new RequestRegistry();
    const leaveNcclEnvironment = enterNcclEnvironment(config.nccl);
    const native = await callNativeAsync(
      () =>
        loadBinding().createEngine(
          toNativeConfig(config, checkpoint.generationDefaults.eosTokenIds, packedWeights),
          checkpoint.tokenizer?.vocabulary ?? null,
          (step) => requests.dispatch(step),
          config.onProgress,
        ),
      site,
    ).catch((error: unknown) => {
      leaveNcclEnvironment();
      throw error;
    });
    const packed = native.stats().ranks.some(({ weightsFromCache }) => !weightsFromCache);
    if (packedWeights !== '' && packed) await dropIfChanged(config, packedWeights);
    return new RunningEngine(config, checkpoint, native, requests);
  }

  /** @throws EngineClosedError once `close` was called. */
  checkOpen(site: CallSite): void {
    if (this.#closing) throw withStack(new EngineClosedError(), site);
  }

  /** @throws EngineClosedError, EngineFailedError when no request can be taken any more. */
  checkUsable(site: CallSite): void {
    this.checkOpen(site);
    if (!this.#failure) return;
    const cause = this.#failure;
    throw withStack(new EngineFailedError(`the engine failed earlier: ${cause.message}`, { cause }), site);
  }

  /** @throws InvalidArgumentError when the checkpoint has none. */
  tokenizerFor(what: string): Tokenizer {
    const { tokenizer } = this.checkpoint;
    if (tokenizer) return tokenizer;
    throw new InvalidArgumentError(`${what} needs a tokenizer.json, and the model folder has none; use token ids`);
  }

  /** Takes on a request. What goes wrong from here on rejects the stream. */
  submit(submission: Submission): RequestStream {
    const { params, options, site } = submission;
    const stream = this.#requests.open({
      requestId: options.requestId ?? `request-${++this.#numRequests}`,
      n: params.n,
      outputKind: params.outputKind,
      signal: options.signal,
      site,
      createdAt: performance.now(),
    });
    // Not awaited: it settles the stream, and never rejects.
    void this.#admit(stream, submission);
    return stream;
  }

  async #admit(stream: RequestStream, { prompt, params, options, site }: Submission): Promise<void> {
    if (stream.ended) return;
    const { badWords } = params;
    try {
      const hasText = !(prompt instanceof Int32Array);
      if (hasText || badWords.length > 0) this.#checkRoomToPrepare();
      const promptTokenIds = hasText ? await prompt(stream.over) : prompt;
      const badWordIds =
        badWords.length > 0 ? await findBadWords(this.tokenizerFor('badWords'), badWords, stream.over) : [];
      // Aborted, or the engine closed or failed, in the meantime.
      if (this.#requests.isOver(stream)) return;
      checkPromptLength(promptTokenIds.length, this.info.maxModelLen);
      this.#checkPromptIds(promptTokenIds);
      const nativeParams = toNativeParams(params, this.info.maxModelLen - promptTokenIds.length, badWordIds);
      const { priority, cacheSalt } = options;
      const id = this.#native.addRequest({ promptTokenIds, params: nativeParams, priority, cacheSalt });
      this.#requests.admit(stream, id, promptTokenIds, nativeParams.maxTokens, {
        abort: () => this.#native.abortRequest(id),
        acknowledge: (numTokens) => this.#native.acknowledge(id, numTokens),
      });
    } catch (error) {
      stream.fail(withStack(errorFromNative(error, site), site));
    }
  }

  /** No more requests may have their texts tokenised than may wait. */
  #checkRoomToPrepare(): void {
    const { maxNumWaiting } = this.config;
    if (this.#requests.numPreparing <= maxNumWaiting) return;
    throw new QueueFullError(`${maxNumWaiting} requests wait already (maxNumWaiting)`);
  }

  /** A tokenizer may know more ids than its model. */
  #checkPromptIds(ids: Int32Array): void {
    const { vocabSize } = this.info;
    const wrong = ids.find((id) => id >= vocabSize);
    if (wrong === undefined) return;
    throw new InvalidArgumentError(`prompt has token ${wrong}, which the model's vocabulary of ${vocabSize} lacks`);
  }

  /** Bytes that form no character become U+FFFD. */
  decode(tokenIds: Int32Array, skipSpecialTokens: boolean, site: CallSite): string {
    return callNative(() => this.#native.decode(tokenIds, skipSpecialTokens), site);
  }

  health(): EngineHealth {
    const { lastStepAgeMs, numRunning, numWaiting } = this.#readStats();
    return { status: this.#status(lastStepAgeMs), lastStepAgeMs, numRunning, numWaiting };
  }

  #status(lastStepAgeMs: number): EngineHealth['status'] {
    if (this.#isClosed) return 'closed';
    if (this.#failure) return 'failed';
    if (!this.#requests.hasRunnable()) return 'idle';
    // In a step a rank waits at most timeoutMs for another. An engine that just got work is not late with it.
    const lateMs = Math.min(lastStepAgeMs, performance.now() - this.#requests.lastWorkGivenAt);
    return lateMs > this.config.timeoutMs ? 'stalled' : 'ok';
  }

  stats(): EngineStats {
    return toEngineStats(this.#readStats());
  }

  /** The native side's, or after the end its last. */
  #readStats(): NativeStats {
    if (!this.#isClosed) this.#lastStats = this.#native.stats();
    return this.#lastStats;
  }

  #fail(failure: unknown): void {
    this.#failure ??= errorFromNative(failure, {});
    const ids = this.#requests.admittedIds;
    this.#requests.failAll((site) => errorFromNative(failure, site));
    for (const id of ids) this.#abandon(id);
  }

  /** What failed may be the way from the engine to here, and the engine would go on. One that failed does not mind. */
  #abandon(id: number): void {
    try {
      this.#native.abortRequest(id);
    } catch {
      // Nobody waits for the request any more.
    }
  }

  /** See {@link Engine.close}. */
  async close(drain: boolean, timeoutMs: number | null): Promise<void> {
    this.#closing ??= this.#shutDown();
    if (drain) this.#requests.collectAll();
    else this.#stopDraining();
    const timer = timeoutMs === null ? undefined : setTimeout(this.#stopDraining, timeoutMs);
    try {
      await this.#closing;
    } finally {
      clearTimeout(timer);
    }
  }

  async #shutDown(): Promise<void> {
    const hurried = new Promise<void>((resolve) => (this.#stopDraining = resolve));
    await Promise.race([this.#requests.whenIdle(), hurried]);
    this.#requests.failAll((site) => withStack(new EngineClosedError('the engine was closed'), site));
    this.#readStats();
    this.#isClosed = true;
    await Promise.all([this.#native.close(), this.checkpoint.chatTemplate?.close()]);
  }
}
