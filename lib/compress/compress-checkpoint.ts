/**
 * Checkpoints made smaller, as compressed-tensors that other tools read too.
 *
 * @module
 */
import type { CompressionLoss, CompressionResult, PruneOptions, QuantizeOptions } from '../../types/compression';
import {
  resolvePruneOptions,
  resolveQuantizeOptions,
  type ResolvedCompressionOptions,
} from '../config/compression-options';
import { callSite, type CallSite } from '../errors';
import { loadBinding, type NativeCompressionConfig, type NativeCompressionReport } from '../native/binding';
import { callNative, callNativeAsync } from '../native/native-error';
import { offAbort, onAbort } from '../streaming/abort-signal';
import { evaluateLoss } from './evaluate-loss';
import { readSequences } from './text-sequences';

/**
 * Writes a checkpoint with weights of 8 bits. One that is pruned 2:4 stays so.
 *
 * @throws InvalidArgumentError for wrong options, an output that exists or cannot be written, and a disk without room.
 * @throws ModelFormatError, UnsupportedModelError, InsufficientMemoryError as `Engine.create` would.
 */
export async function quantizeCheckpoint(options: QuantizeOptions): Promise<CompressionResult> {
  const site = callSite();
  return compressCheckpoint(resolveQuantizeOptions(options), site);
}

/**
 * Writes a checkpoint in which two of every four neighbouring weights of linear layers are zero.
 *
 * @throws InvalidArgumentError for wrong options, an output that exists or cannot be written, and a disk without room.
 * @throws ModelFormatError, UnsupportedModelError, InsufficientMemoryError as `Engine.create` would.
 */
export async function pruneCheckpoint(options: PruneOptions): Promise<CompressionResult> {
  const site = callSite();
  return compressCheckpoint(resolvePruneOptions(options), site);
}

async function compressCheckpoint(options: ResolvedCompressionOptions, site: CallSite): Promise<CompressionResult> {
  const { signal } = options;
  let evaluation: Int32Array[];
  let result: CompressionResult;
  try {
    signal?.throwIfAborted();
    const calibration = await sequencesOf('calibration', options);
    evaluation = await sequencesOf('evaluation', options);
    result = { ...(await runNative(options, calibration, site)), calibrationTokens: countTokens(calibration) };
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
  return evaluation.length > 0 ? { ...result, loss: await measureLoss(options, evaluation) } : result;
}

async function sequencesOf(
  name: 'calibration' | 'evaluation',
  options: ResolvedCompressionOptions,
): Promise<Int32Array[]> {
  const { model, sequenceLength, maxTokens } = options;
  const file = options[name];
  return file === null ? [] : readSequences(file, model, { name, sequenceLength, maxTokens });
}

async function runNative(
  options: ResolvedCompressionOptions,
  sequences: Int32Array[],
  site: CallSite,
): Promise<NativeCompressionReport> {
  const { signal, onProgress } = options;
  // Texts took their time, and a signal that is aborted already has no listeners to call.
  signal?.throwIfAborted();
  const config = toNativeCompression(options, sequences);
  const compression = callNative(() => loadBinding().startCompression(config, onProgress), site);
  const cancel = (): void => compression.cancel();
  if (signal) onAbort(signal, cancel);
  try {
    return await callNativeAsync(() => compression.done, site);
  } finally {
    if (signal) offAbort(signal, cancel);
  }
}

function toNativeCompression(options: ResolvedCompressionOptions, sequences: Int32Array[]): NativeCompressionConfig {
  const { model, output, scheme, pruning, dense, smooth, ignore, memoryBytes, threads, cpuIsa } = options;
  return { model, output, scheme, pruning, dense, smooth, ignore, sequences, memoryBytes, threads, cpuIsa };
}

/** The new checkpoint is complete: that a loss cannot be measured is told, and is no failure. */
async function measureLoss(
  { model, output, signal }: ResolvedCompressionOptions,
  sequences: Int32Array[],
): Promise<CompressionLoss> {
  const loss: CompressionLoss = { numTokens: countTokens(sequences) - sequences.length };
  try {
    loss.before = await evaluateLoss(model, sequences, signal);
    loss.after = await evaluateLoss(output, sequences, signal);
  } catch (error) {
    loss.error = error instanceof Error ? error.message : String(error);
  }
  return loss;
}

function countTokens(sequences: readonly Int32Array[]): number {
  return sequences.reduce((sum, { length }) => sum + length, 0);
}
