/**
 * `heddle prune`: a checkpoint in which two of every four weights are zero.
 *
 * @module
 */
import type { Command } from 'commander';

import type { PruneOptions } from '../../types/compression';
import { pruneCheckpoint } from '../index';
import { addCompressionFlags, compressionOptions, runCompression, type CompressionFlags } from './compression';

type PruneFlags = CompressionFlags & Pick<PruneOptions, 'method' | 'format'>;

/** Adds the command to the program. */
export function addPruneCommand(program: Command): void {
  const command = program
    .command('prune')
    .description('write a checkpoint whose linear layers are pruned 2:4, as compressed-tensors')
    .requiredOption('--method <method>', 'magnitude, wanda or sparsegpt; the last two need --calibration')
    .option('--format <format>', 'compressed, or dense for programs that know nothing of 2:4 (default: compressed)');
  addCompressionFlags(command).action(prune);
}

async function prune(flags: PruneFlags): Promise<void> {
  const { method, format } = flags;
  await runCompression(flags, 'pruning', (added) =>
    pruneCheckpoint({ ...compressionOptions(flags), ...added, method, format }),
  );
}
