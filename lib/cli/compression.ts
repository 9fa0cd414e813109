/**
 * What `heddle quantize` and `heddle prune` share: their flags, interruption, and what they print.
 *
 * @module
 */
import path from 'node:path';

import type { Command } from 'commander';

import type { CompressionLoss, CompressionOptions, CompressionResult } from '../../types/compression';
import { numeric } from './options';
import { formatBytes, write } from './output';
import { ProgressLine } from './progress';

/** What the shared flags give. */
export interface CompressionFlags {
  model: string;
  output: string;
  ignore?: string[];
  calibration?: string;
  eval?: string;
  sequenceLength?: number;
  maxTokens?: number;
  memoryBytes?: number;
  threads?: number;
  json?: boolean;
}

/** Adds the flags of {@link CompressionFlags}. */
export function addCompressionFlags(command: Command): Command {
  return command
    .requiredOption('-m, --model <dir>', 'folder of a checkpoint in the Hugging Face layout')
    .requiredOption('-o, --output <dir>', 'folder to make')
    .option('--ignore <layers...>', 'linear layers to leave as they are, by name or the end of it; lm_head always is')
    .option('--calibration <file>', 'text that shows what goes into the layers')
    .option('--eval <file>', 'text whose loss is shown before and after (default: the calibration text)')
    .option('--sequence-length <n>', 'tokens of each sequence that texts are cut into (default: 512)', numeric)
    .option('--max-tokens <n>', 'tokens of each text that are used (default: 65536)', numeric)
    .option('--memory-bytes <n>', 'memory that calibration aims for (default: half of what is available)', numeric)
    .option('--threads <n>', 'compute threads (default: the processors available)', numeric)
    .option('--json', 'print one line of JSON')
    .option('--debug', 'show the stack of an error');
}

/** The options that the flags stand for, without what {@link runCompression} adds. */
export function compressionOptions(flags: CompressionFlags): CompressionOptions {
  const { model, output, ignore, calibration, sequenceLength, maxTokens, memoryBytes, threads } = flags;
  // The head is left alone without being named; naming it is what other tools want.
  const layers = ignore?.filter((layer) => layer !== 'lm_head');
  return {
    model,
    output,
    ignore: layers,
    calibration,
    evaluation: flags.eval,
    sequenceLength,
    maxTokens,
    memoryBytes,
    threads,
  };
}

/**
 * Runs the work with its progress on a terminal; Ctrl-C ends it, and leaves nothing behind.
 *
 * @param doing - What is going on, such as `'pruning'`.
 */
export async function runCompression(
  flags: CompressionFlags,
  doing: string,
  run: (added: Pick<CompressionOptions, 'onProgress' | 'signal'>) => Promise<CompressionResult>,
): Promise<void> {
  const progress = new ProgressLine(`${doing} ${path.basename(path.resolve(flags.model))}`);
  const controller = new AbortController();
  const interrupt = (): void => controller.abort(new Error('interrupted'));
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  try {
    const result = await run({ onProgress: progress.update, signal: controller.signal });
    progress.done();
    await write(flags.json ? `${JSON.stringify(result)}\n` : describe(flags.output, result));
  } finally {
    progress.done();
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  }
}

function describe(output: string, result: CompressionResult): string {
  const { numMatrices, numSparse, sourceBytes, outputBytes, memoryBytes, numPasses, calibrationTokens } = result;
  const sparse = numSparse > 0 ? `, ${numSparse} stored 2:4` : '';
  const share = ((100 * outputBytes) / sourceBytes).toFixed(1);
  const passes = numPasses > 1 ? ` in ${numPasses} passes` : '';
  return [
    ...result.removed.map((name) => `removed ${name}, which a killed run had left`),
    `${output}: ${numMatrices} linear layers changed${sparse}`,
    `weights: ${formatBytes(sourceBytes)} before, ${formatBytes(outputBytes)} after (${share} %)`,
    `memory: ${formatBytes(memoryBytes)} at most`,
    ...(numPasses > 0 ? [`calibration: ${calibrationTokens} tokens${passes}`] : []),
    ...(result.loss ? [describeLoss(result.loss)] : []),
    '',
  ].join('\n');
}

function describeLoss({ numTokens, before, after, error }: CompressionLoss): string {
  const shown = (value: number | undefined): string => value?.toFixed(5) ?? 'unknown';
  const reason = error === undefined ? '' : ` (${error})`;
  return `loss: ${shown(before)} before, ${shown(after)} after, nats a token over ${numTokens} tokens${reason}`;
}
