/**
 * The engine: one model, loaded, and everything one can ask of it.
 *
 * @module
 */
import type { Registry } from 'prom-client';

import type {
  ChatMessage,
  ChatOptions,
  CloseOptions,
  DecodeOptions,
  EncodeOptions,
  EngineConfig,
  Prompt,
  RequestOptions,
  SamplingParams,
} from '../types/options';
import type { EngineHealth, EngineStats, GenerationStream, MemoryPlan } from '../types/outputs';
import { resolveEngineConfig } from './config/engine-config';
import { resolveMessages, resolvePrompt, resolveTokenIds } from './config/prompt';
import {
  resolveChatOptions,
  resolveCloseOptions,
  resolveDecodeOptions,
  resolveEncodeOptions,
  resolveRequestOptions,
} from './config/request-options';
import { resolveSamplingParams, type ResolvedSamplingParams } from './config/sampling-params';
import { wellFormedText } from './config/validate';
import { readGenerationDefaults } from './engine/checkpoint';
import { toMemoryPlan, toNativeConfig } from './engine/native-values';
import { RunningEngine, type PromptReader } from './engine/running-engine';
import { callSite, InvalidArgumentError } from './errors';
import { loadBinding } from './native/binding';
import { callNativeAsync } from './native/native-error';

/** Known here only, so that nobody else constructs an engine. */
const BY_CREATE = Symbol('Engine.create');

/**
 * A model in this process. Made by {@link Engine.create}; to be closed when no longer needed. It keeps the process alive
 * only while a request can go on: not for one that waits for a consumer who does not come.
 *
 * Methods that return a stream throw at once what is wrong with their arguments; what shows later (a text with too many
 * tokens, a full queue) rejects the stream. After `close()` all but `health()`, `metrics` and `close()` itself throw
 * `EngineClosedError`; after a failure, `generate` and `chat` throw `EngineFailedError`.
 */
export class Engine implements AsyncDisposable {
  readonly #running: RunningEngine;

  private constructor(key: symbol, running: RunningEngine) {
    // TypeScript's `private` does not hold in plain JavaScript.
    if (key !== BY_CREATE) throw new InvalidArgumentError('an Engine must be made by Engine.create(), not by new');
    this.#running = running;
  }

  /**
   * The bytes that an engine of this configuration would need. Reads `config.json` only.
   *
   * On a GPU that is the most that it comes to take: what penalties, log-probabilities and graphs of decoding steps need
   * is counted in full, but taken only once requests have a use for it.
   *
   * @throws InvalidArgumentError for a wrong configuration.
   * @throws ModelFormatError, UnsupportedModelError, InsufficientMemoryError as {@link Engine.create} would.
   */
  static async plan(config: EngineConfig): Promise<MemoryPlan> {
    const site = callSite();
    const resolved = resolveEngineConfig(config);
    const { eosTokenIds } = await readGenerationDefaults(resolved.model);
    const nativeConfig = toNativeConfig(resolved, eosTokenIds);
    return toMemoryPlan(await callNativeAsync(() => loadBinding().planMemory(nativeConfig), site));
  }

  /**
   * Loads a model. Nothing stays behind when it rejects.
   *
   * @throws InvalidArgumentError for a wrong configuration.
   * @throws ModelFormatError for a missing folder or a broken file.
   * @throws UnsupportedModelError for a sound checkpoint that needs what this version does not compute.
   * @throws InsufficientMemoryError when weights and KV cache do not fit.
   */
  static async create(config: EngineConfig): Promise<Engine> {
    const site = callSite();
    return new Engine(BY_CREATE, await RunningEngine.start(resolveEngineConfig(config), site));
  }

  /**
   * Generates from a prompt.
   *
   * @throws InvalidArgumentError naming key, expectation and value.
   */
  generate(prompt: Prompt, params: SamplingParams = {}, options: RequestOptions = {}): GenerationStream {
    const site = callSite();
    this.#running.checkUsable(site);
    const given = resolvePrompt(prompt, this.#running.info);
    return this.#running.submit({
      prompt: 'text' in given ? this.#encoderOf(given.text) : given.tokenIds,
      params: this.#resolveParams(params),
      options: resolveRequestOptions(options, this.#running.config.schedulingPolicy),
      site,
    });
  }

  /**
   * Generates the next message of a conversation, through the checkpoint's chat template.
   *
   * @throws InvalidArgumentError naming key, expectation and value, or when the checkpoint has no template.
   */
  chat(messages: ChatMessage[], params: SamplingParams = {}, options: ChatOptions = {}): GenerationStream {
    const site = callSite();
    this.#running.checkUsable(site);
    const conversation = resolveMessages(messages);
    const { chatTemplate } = this.#running.checkpoint;
    if (!chatTemplate) throw new InvalidArgumentError('chat() needs a chat template, and the model folder has none');
    const resolved = resolveChatOptions(options, this.#running.config.schedulingPolicy);
    const encode = this.#promptEncoder({ addSpecialTokens: false });
    return this.#running.submit({
      prompt: async (signal) => encode(await chatTemplate.render(conversation, resolved, signal), signal),
      params: this.#resolveParams(params),
      options: resolved,
      site,
    });
  }

  /**
   * The token ids of a text of at most 4 Mi characters.
   *
   * @throws InvalidArgumentError for text that is longer, not well-formed Unicode, or that the tokenizer cannot read.
   */
  async encode(text: string, options: EncodeOptions = {}): Promise<Int32Array> {
    this.#running.checkOpen(callSite());
    const settings = resolveEncodeOptions(options);
    return this.#running.tokenizerFor('encode()').encode(wellFormedText(text, 'text'), settings);
  }

  /**
   * The text of token ids on their own. Bytes that form no character become U+FFFD. A space at the beginning is kept, even
   * where a tokenizer (Llama 2, Mistral) would drop it: generated text continues its prompt.
   *
   * @throws InvalidArgumentError for ids beyond the vocabulary.
   */
  decode(tokenIds: ArrayLike<number>, options: DecodeOptions = {}): string {
    const site = callSite();
    this.#running.checkOpen(site);
    const { skipSpecialTokens } = resolveDecodeOptions(options);
    const ids = resolveTokenIds(tokenIds, 'tokenIds', this.#running.info.vocabSize);
    this.#running.tokenizerFor('decode()');
    return this.#running.decode(ids, skipSpecialTokens, site);
  }

  /** Whether the engine makes progress. Cheap, and allowed at any time. */
  health(): EngineHealth {
    return this.#running.health();
  }

  /** Counters and gauges, now. */
  stats(): EngineStats {
    this.#running.checkOpen(callSite());
    return this.#running.stats();
  }

  /** Metrics of this engine for Prometheus, with vLLM's names. After `close()` they keep their last values. */
  get metrics(): Registry {
    return this.#running.metrics.registry;
  }

  /**
   * Stops the engine and frees what it holds. Open requests end with `EngineClosedError`, or first run to their end with
   * `drain`, whether somebody takes what they bring or not. Streams that are being iterated keep their pace: a loop that
   * awaits a draining `close()` waits for itself, until `timeoutMs` if given. May be called in any state, any number of
   * times: a later call without `drain`, or one whose `timeoutMs` passes, ends the draining of an earlier one.
   */
  async close(options: CloseOptions = {}): Promise<void> {
    const { drain, timeoutMs } = resolveCloseOptions(options);
    await this.#running.close(drain, timeoutMs);
  }

  /** `close()` without draining. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #resolveParams(params: SamplingParams): ResolvedSamplingParams {
    const { config, info, checkpoint } = this.#running;
    return resolveSamplingParams(params, {
      vocabSize: info.vocabSize,
      maxLogprobs: config.maxLogprobs,
      defaults: checkpoint.generationDefaults,
      hasTokenizer: checkpoint.tokenizer !== null,
    });
  }

  #encoderOf(text: string): PromptReader {
    const encode = this.#promptEncoder({ addSpecialTokens: true });
    return (signal) => encode(text, signal);
  }

  #promptEncoder({ addSpecialTokens }: { addSpecialTokens: boolean }) {
    const tokenizer = this.#running.tokenizerFor('a prompt of text');
    const maxTokens = this.#running.info.maxModelLen - 1;
    return (text: string, signal: AbortSignal): Promise<Int32Array> =>
      tokenizer.encode(text, { addSpecialTokens, name: 'prompt', maxTokens, signal });
  }
}
