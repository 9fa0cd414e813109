/**
 * `heddle quantize`: a checkpoint with weights of 8 bits.
 *
 * @module
 */
import type { Command } from 'commander';

import type { QuantizeOptions } from '../../types/compression';
import { quantizeCheckpoint } from '../index';
import { addCompressionFlags, compressionOptions, runCompression, type CompressionFlags } from './compression';
import { numeric } from './options';

type QuantizeFlags = CompressionFlags & Pick<QuantizeOptions, 'scheme' | 'smooth'>;

/** Adds the command to the program. */
export function addQuantizeCommand(program: Command): void {
  const command = program
    .command('quantize')
    .description('write a checkpoint with weights of 8 bits, as compressed-tensors; one that is pruned 2:4 stays so')
    .requiredOption('--scheme <scheme>', 'int8: weights; w8a8: weights and what goes into layers')
    .option('--smooth <x>', 'SmoothQuant, 0 to 1, for w8a8 with --calibration (default: 0.5 there)', numeric);
  addCompressionFlags(command).action(quantize);
}

async function quantize(flags: QuantizeFlags): Promise<void> {
  const { scheme, smooth } = flags;
  await runCompression(flags, 'quantizing', (added) =>
    quantizeCheckpoint({ ...compressionOptions(flags), ...added, scheme, smooth }),
  );
}
