/**
 * The open requests of an engine, and the way of its output to them.
 *
 * @module
 */
import type { GenerationOutput } from '../../types/outputs';
import { EngineFailedError, type CallSite, type HeddleError } from '../errors';
import type { NativeDelta, NativeStep } from '../native/binding';
import { RequestStream, type StreamHost, type StreamOptions } from '../streaming/generation-stream';

/** Who is told what happens. None of it may throw. */
export interface RegistryListener {
  /** Whether any request can go on: it is being prepared, or runs and does not wait for its consumer. Called when that changes. */
  onBusyChange(busy: boolean): void;
  /** The engine failed: what it reports, or what taking in its output threw. */
  onFailure(failure: unknown): void;
  onStep(seconds: number, numTokens: number): void;
  /** Since the request was made. */
  onFirstToken(seconds: number): void;
  /** Since the last token of the same sequence. */
  onNextToken(seconds: number): void;
  /** A request that the engine had is over. */
  onRequestEnd(output: GenerationOutput, maxTokens: number): void;
}

/** A request that the engine has. */
interface Admitted {
  readonly stream: RequestStream;
  readonly maxTokens: number;
  /** When each sequence last got a token. */
  readonly lastTokenAt: (number | undefined)[];
}

/** Consumers this far behind are waited for: the native side pauses their requests, until half of it is taken. */
const MAX_UNACKNOWLEDGED_TOKENS = 1024;

/** All calls on the JavaScript thread. */
export class RequestRegistry {
  /** Set before the first request. */
  listener: RegistryListener | null = null;
  readonly #open = new Set<RequestStream>();
  readonly #admitted = new Map<number, Admitted>();
  readonly #idOf = new Map<RequestStream, number>();
  /** Of those that the engine has, the ones that wait for their consumer. */
  readonly #paused = new Set<RequestStream>();
  #busy = false;
  #idleWaiters: (() => void)[] = [];
  #lastWorkGivenAt = 0;

  /** Requests that are accepted and not yet with the engine: their text is being tokenised. */
  get numPreparing(): number {
    return this.#open.size - this.#admitted.size;
  }

  /** When the engine was last given something to do, on the clock of `performance.now()`. */
  get lastWorkGivenAt(): number {
    return this.#lastWorkGivenAt;
  }

  /** Whether the engine has a request that does not wait for its own consumer. */
  hasRunnable(): boolean {
    return this.#admitted.size > this.#paused.size;
  }

  /** Of those that the engine has, in the order in which it got them. */
  get admittedIds(): number[] {
    return [...this.#admitted.keys()];
  }

  /** Whether a request has ended. */
  isOver(stream: RequestStream): boolean {
    return !this.#open.has(stream);
  }

  /** Accepts a request. */
  open(options: Omit<StreamOptions, 'onEnd'>): RequestStream {
    const stream = new RequestStream({ ...options, onEnd: (ended, output) => this.#remove(ended, output) });
    if (!stream.ended) {
      this.#open.add(stream);
      this.#updateBusy();
    }
    return stream;
  }

  /** The engine has the request under this id now. */
  admit(stream: RequestStream, id: number, promptTokenIds: Int32Array, maxTokens: number, host: StreamHost): void {
    const lastTokenAt = new Array<number | undefined>(stream.options.n).fill(undefined);
    this.#admitted.set(id, { stream, maxTokens, lastTokenAt });
    this.#idOf.set(stream, id);
    this.#lastWorkGivenAt = performance.now();
    const acknowledge = (numTokens: number): void => {
      this.#lastWorkGivenAt = performance.now();
      host.acknowledge(numTokens);
      this.#updatePaused(stream);
    };
    stream.begin({ abort: () => host.abort(), acknowledge }, promptTokenIds);
  }

  /** The engine's one call a step. Never throws: nobody could catch it. */
  dispatch(step: NativeStep): void {
    try {
      this.#deliver(step);
    } catch (error) {
      this.listener?.onFailure(error);
    }
  }

  #deliver(step: NativeStep): void {
    const now = performance.now();
    // The callback comes after its steps: what it reports as begun began no earlier than they did.
    const begunAt = now - 1000 * step.stepSeconds.reduce((sum, seconds) => sum + seconds, 0);
    step.stepSeconds.forEach((seconds, i) => this.listener?.onStep(seconds, step.stepTokens[i] ?? 0));
    for (const id of step.startedRequestIds) this.#admitted.get(id)?.stream.markStarted(begunAt);
    for (const delta of step.deltas) {
      const request = this.#admitted.get(delta.requestId);
      if (!request) continue;
      if (delta.tokenIds.length > 0) this.#measure(request, delta, now);
      request.stream.push(delta, now);
      this.#updatePaused(request.stream);
    }
    if (step.failure) this.listener?.onFailure(step.failure);
  }

  /** Ends every open request with an error of its own. */
  failAll(makeError: (site: CallSite) => HeddleError): void {
    for (const stream of [...this.#open]) {
      try {
        stream.fail(makeError(stream.options.site));
      } catch (cause) {
        stream.fail(new EngineFailedError('the engine failed', { cause }));
      }
    }
  }

  /** From now on only who iterates is waited for: what comes for the others is taken at once, and kept for them. */
  collectAll(): void {
    for (const stream of this.#open) void stream.final();
  }

  /** Resolves when no request is open. */
  whenIdle(): Promise<void> {
    return this.#open.size === 0 ? Promise.resolve() : new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  #measure({ stream, lastTokenAt }: Admitted, { index }: NativeDelta, now: number): void {
    const last = lastTokenAt[index];
    if (last !== undefined) this.listener?.onNextToken((now - last) / 1000);
    else if (lastTokenAt.every((at) => at === undefined))
      this.listener?.onFirstToken((now - stream.options.createdAt) / 1000);
    lastTokenAt[index] = now;
  }

  /** The books first: what a figure's listener throws leaves nobody waiting. */
  #remove(stream: RequestStream, output: GenerationOutput | null): void {
    const id = this.#idOf.get(stream);
    const admitted = id === undefined ? undefined : this.#admitted.get(id);
    if (id !== undefined) this.#admitted.delete(id);
    this.#idOf.delete(stream);
    this.#paused.delete(stream);
    this.#open.delete(stream);
    if (this.#open.size === 0) for (const resolve of this.#idleWaiters.splice(0)) resolve();
    this.#updateBusy();
    if (admitted && output) this.listener?.onRequestEnd(output, admitted.maxTokens);
  }

  /** Pauses and resumes where the native side does. */
  #updatePaused(stream: RequestStream): void {
    if (!this.#idOf.has(stream)) return;
    if (stream.numUnacknowledged > MAX_UNACKNOWLEDGED_TOKENS) this.#paused.add(stream);
    else if (stream.numUnacknowledged <= MAX_UNACKNOWLEDGED_TOKENS / 2) this.#paused.delete(stream);
    this.#updateBusy();
  }

  #updateBusy(): void {
    const busy = this.#open.size > this.#paused.size;
    if (busy === this.#busy) return;
    this.#busy = busy;
    this.listener?.onBusyChange(busy);
  }
}
