/**
 * heddle: a tensor-parallel LLM engine inside Node.js. This file is the only list of what the package exports.
 *
 * @module heddle
 */
export { pruneCheckpoint, quantizeCheckpoint } from './compress/compress-checkpoint';
export { Engine } from './engine';
export {
  CommTimeoutError,
  EngineClosedError,
  EngineFailedError,
  HeddleError,
  InsufficientMemoryError,
  InvalidArgumentError,
  ModelFormatError,
  QueueFullError,
  RankFailedError,
  RequestAbortedError,
  RequestFailedError,
  UnsupportedModelError,
} from './errors';
export type { ErrorCode, HeddleErrorOptions } from './errors';
export type * from '../types/compression';
export type * from '../types/options';
export type * from '../types/outputs';
