/**
 * Options of quantising and pruning: defaults, checks, and what follows from them.
 *
 * @module
 */
import type { CompressionOptions, PruneOptions, QuantizeOptions } from '../../types/compression';
import { cpuIsaFromEnvironment, folderPath, progressCallback } from './engine-config';
import { abortSignal } from './request-options';
import { integer, listOf, number, oneOf, readObject, refuse, shortText, type Checks } from './validate';

/** {@link CompressionOptions} and what is to be done, with everything decided that does not need the checkpoint. */
export interface ResolvedCompressionOptions {
  /** Absolute, as the other paths. */
  readonly model: string;
  readonly output: string;
  readonly scheme: 'none' | QuantizeOptions['scheme'];
  readonly pruning: 'none' | PruneOptions['method'];
  readonly dense: boolean;
  readonly smooth: number;
  readonly ignore: string[];
  /** Null: none, also where nothing needs it. */
  readonly calibration: string | null;
  readonly evaluation: string | null;
  /** Null: the default. */
  readonly sequenceLength: number | null;
  readonly maxTokens: number;
  /** 0: chosen by the native side, as `threads`. */
  readonly memoryBytes: number;
  readonly threads: number;
  /** `''`: the best that this machine runs. */
  readonly cpuIsa: string;
  readonly onProgress: ((fraction: number) => void) | null;
  readonly signal: AbortSignal | null;
}

const commonChecks: Checks<CompressionOptions> = {
  model: folderPath,
  output: folderPath,
  ignore: listOf(shortText(512), 0, 65536),
  calibration: folderPath,
  evaluation: folderPath,
  sequenceLength: integer(2, 2 ** 31 - 1),
  maxTokens: integer(2),
  memoryBytes: integer(1),
  threads: integer(1, 256),
  onProgress: progressCallback,
  signal: abortSignal,
};

const quantizeChecks: Checks<QuantizeOptions> = {
  ...commonChecks,
  scheme: oneOf(['int8', 'w8a8']),
  smooth: number(0, 1),
};

const pruneChecks: Checks<PruneOptions> = {
  ...commonChecks,
  method: oneOf(['magnitude', 'wanda', 'sparsegpt']),
  format: oneOf(['compressed', 'dense']),
};

/** @throws InvalidArgumentError */
export function resolveQuantizeOptions(options: QuantizeOptions): ResolvedCompressionOptions {
  const given = readObject(options, 'QuantizeOptions', quantizeChecks);
  const scheme = given.scheme ?? refuse('scheme', 'one of "int8" and "w8a8"', undefined);
  const smooth = given.smooth ?? (scheme === 'w8a8' && given.calibration !== undefined ? 0.5 : 0);
  if (smooth > 0 && scheme !== 'w8a8')
    refuse('smooth', 'left out with scheme "int8", which leaves inputs alone', smooth);
  if (smooth > 0) needsCalibration(given.calibration, 'to smooth');
  return complete(given, { scheme, pruning: 'none', dense: false, smooth }, smooth > 0);
}

/** @throws InvalidArgumentError */
export function resolvePruneOptions(options: PruneOptions): ResolvedCompressionOptions {
  const given = readObject(options, 'PruneOptions', pruneChecks);
  const pruning = given.method ?? refuse('method', 'one of "magnitude", "wanda" and "sparsegpt"', undefined);
  if (pruning !== 'magnitude') needsCalibration(given.calibration, `for method "${pruning}"`);
  const dense = given.format === 'dense';
  return complete(given, { scheme: 'none', pruning, dense, smooth: 0 }, pruning !== 'magnitude');
}

function needsCalibration(calibration: string | undefined, purpose: string): void {
  if (calibration === undefined) refuse('calibration', `the path of a text file ${purpose}`, calibration);
}

function complete(
  given: Partial<CompressionOptions>,
  task: Pick<ResolvedCompressionOptions, 'scheme' | 'pruning' | 'dense' | 'smooth'>,
  calibrates: boolean,
): ResolvedCompressionOptions {
  return Object.freeze({
    ...task,
    model: given.model ?? refuse('model', 'the path of a folder', undefined),
    output: given.output ?? refuse('output', 'the path of a folder to make', undefined),
    ignore: given.ignore ?? [],
    calibration: calibrates ? given.calibration! : null,
    evaluation: given.evaluation ?? given.calibration ?? null,
    sequenceLength: given.sequenceLength ?? null,
    maxTokens: given.maxTokens ?? 65536,
    memoryBytes: given.memoryBytes ?? 0,
    threads: given.threads ?? 0,
    cpuIsa: cpuIsaFromEnvironment(),
    onProgress: given.onProgress ?? null,
    signal: given.signal ?? null,
  });
}
