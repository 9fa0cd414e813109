/**
 * Every error that heddle throws or rejects with. All carry a stable `code`; there is a class of its own where a caller
 * would act differently.
 *
 * @module
 */
import type { GenerationOutput } from '../types/outputs';

/** Stable names of what can go wrong. */
export type ErrorCode =
  | 'ERR_INVALID_ARGUMENT'
  | 'ERR_MODEL_FORMAT'
  | 'ERR_UNSUPPORTED_MODEL'
  | 'ERR_INSUFFICIENT_MEMORY'
  | 'ERR_QUEUE_FULL'
  | 'ERR_REQUEST_ABORTED'
  | 'ERR_RANK_FAILED'
  | 'ERR_COMM_TIMEOUT'
  | 'ERR_ENGINE_CLOSED'
  | 'ERR_ENGINE_FAILED'
  | 'ERR_REQUEST_FAILED'
  | 'ERR_NATIVE_MODULE';

/** What an error may carry beside its message. */
export interface HeddleErrorOptions {
  /** What led to it. */
  cause?: unknown;
}

/** Base of all errors of this package. Thrown itself only with `ERR_NATIVE_MODULE`: the compiled part is missing or broken. */
export class HeddleError extends Error {
  /** Stable, for programs; the message is for people and may change. */
  readonly code: ErrorCode;

  /** What a request had generated when it failed; absent where there was no request. Not enumerable: logs leave it out. */
  declare readonly output?: GenerationOutput;

  /** @internal */
  constructor(code: ErrorCode, message: string, options?: HeddleErrorOptions) {
    super(message, options);
    this.code = code;
  }

  static {
    this.prototype.name = 'HeddleError';
  }
}

/** The caller passed something that can never work. */
export class InvalidArgumentError extends HeddleError {
  /** @internal */
  constructor(message: string, options?: HeddleErrorOptions) {
    super('ERR_INVALID_ARGUMENT', message, options);
  }

  static {
    this.prototype.name = 'InvalidArgumentError';
  }
}

/** A file of the checkpoint is missing, broken or contradicts another. */
export class ModelFormatError extends HeddleError {
  /** @internal */
  constructor(message: string, options?: HeddleErrorOptions) {
    super('ERR_MODEL_FORMAT', message, options);
  }

  static {
    this.prototype.name = 'ModelFormatError';
  }
}

/** A sound checkpoint that needs something this version does not compute. */
export class UnsupportedModelError extends HeddleError {
  /** @internal */
  constructor(message: string, options?: HeddleErrorOptions) {
    super('ERR_UNSUPPORTED_MODEL', message, options);
  }

  static {
    this.prototype.name = 'UnsupportedModelError';
  }
}

/** Weights or KV cache do not fit into memory. */
export class InsufficientMemoryError extends HeddleError {
  /** @internal */
  constructor(message: string, options?: HeddleErrorOptions) {
    super('ERR_INSUFFICIENT_MEMORY', message, options);
  }

  static {
    this.prototype.name = 'InsufficientMemoryError';
  }
}

/** Too many requests wait already (`maxNumWaiting`). Try again later. */
export class QueueFullError extends HeddleError {
  /** @internal */
  constructor(message: string, options?: HeddleErrorOptions) {
    super('ERR_QUEUE_FULL', message, options);
  }

  static {
    this.prototype.name = 'QueueFullError';
  }
}

/** The request's `signal` was aborted. `name` is `'AbortError'`, as in the web platform; `cause` is the signal's reason. */
export class RequestAbortedError extends HeddleError {
  /** What was generated until then. */
  declare readonly output: GenerationOutput;

  /** @internal */
  constructor(output: GenerationOutput, options?: HeddleErrorOptions) {
    super('ERR_REQUEST_ABORTED', 'the request was aborted', options);
    withOutput(this, output);
  }

  static {
    this.prototype.name = 'AbortError';
  }
}

/** A rank died or failed. */
export class RankFailedError extends HeddleError {
  /** @internal */
  constructor(message: string, options?: HeddleErrorOptions) {
    super('ERR_RANK_FAILED', message, options);
  }

  static {
    this.prototype.name = 'RankFailedError';
  }
}

/** A rank waited for another for longer than `parallel.timeoutMs`. */
export class CommTimeoutError extends HeddleError {
  /** @internal */
  constructor(message: string, options?: HeddleErrorOptions) {
    super('ERR_COMM_TIMEOUT', message, options);
  }

  static {
    this.prototype.name = 'CommTimeoutError';
  }
}

/** The engine was closed before or while it was used. */
export class EngineClosedError extends HeddleError {
  /** @internal */
  constructor(message = 'the engine is closed', options?: HeddleErrorOptions) {
    super('ERR_ENGINE_CLOSED', message, options);
  }

  static {
    this.prototype.name = 'EngineClosedError';
  }
}

/** The engine failed and does no more work. `cause` is the first failure. */
export class EngineFailedError extends HeddleError {
  /** @internal */
  constructor(message: string, options?: HeddleErrorOptions) {
    super('ERR_ENGINE_FAILED', message, options);
  }

  static {
    this.prototype.name = 'EngineFailedError';
  }
}

/** The engine failed at this request, for example because the model gave logits that are not numbers, and goes on with the others. */
export class RequestFailedError extends HeddleError {
  /** @internal */
  constructor(message: string, options?: HeddleErrorOptions) {
    super('ERR_REQUEST_FAILED', message, options);
  }

  static {
    this.prototype.name = 'RequestFailedError';
  }
}

const CLASS_OF_CODE = new Map<string, new (message: string, options?: HeddleErrorOptions) => HeddleError>([
  ['ERR_INVALID_ARGUMENT', InvalidArgumentError],
  ['ERR_MODEL_FORMAT', ModelFormatError],
  ['ERR_UNSUPPORTED_MODEL', UnsupportedModelError],
  ['ERR_INSUFFICIENT_MEMORY', InsufficientMemoryError],
  ['ERR_QUEUE_FULL', QueueFullError],
  ['ERR_RANK_FAILED', RankFailedError],
  ['ERR_COMM_TIMEOUT', CommTimeoutError],
  ['ERR_ENGINE_CLOSED', EngineClosedError],
  ['ERR_CANCELLED', EngineClosedError],
  ['ERR_ENGINE_FAILED', EngineFailedError],
  ['ERR_REQUEST_FAILED', RequestFailedError],
]);

/** A place in the caller's code, to be shown by errors that arise later or elsewhere. @internal */
export interface CallSite {
  stack?: string | undefined;
}

/** Where the caller stands now. @internal */
export function callSite(): CallSite {
  const site: CallSite = {};
  Error.captureStackTrace(site, callSite);
  return site;
}

/**
 * The typed error for one that the native module threw or reported, with the caller's JavaScript stack: native errors
 * have none of use. Codes without a class (bugs of ours) become {@link EngineFailedError}. Typed errors pass unchanged.
 *
 * @internal
 */
export function errorFromNative(nativeError: unknown, site: CallSite): HeddleError {
  if (nativeError instanceof HeddleError) return nativeError;
  const { code, message } = nativeFault(nativeError);
  const ErrorClass = CLASS_OF_CODE.get(code) ?? EngineFailedError;
  return withStack(new ErrorClass(message, { cause: nativeError }), site);
}

/** Gives an error the stack of `site`. @internal */
export function withStack<T extends Error>(error: T, site: CallSite): T {
  const frames = /^ {4}at [^]*/m.exec(site.stack ?? '')?.[0];
  if (frames) error.stack = `${error.name}: ${error.message}\n${frames}`;
  return error;
}

/** Lets an error carry what its request had generated. @internal */
export function withOutput<T extends HeddleError>(error: T, output: GenerationOutput): T {
  return Object.defineProperty(error, 'output', { value: output, configurable: true });
}

function nativeFault(error: unknown): { code: string; message: string } {
  if (typeof error !== 'object' || error === null) return { code: '', message: String(error) };
  const { code, message } = error as { code?: unknown; message?: unknown };
  return {
    code: typeof code === 'string' ? code : '',
    message: typeof message === 'string' ? message : 'unknown failure',
  };
}
