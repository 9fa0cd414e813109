/**
 * `heddle plan`: what an engine would need, before anything loads.
 *
 * @module
 */
import type { Command } from 'commander';

import type { MemoryPlan } from '../../types/outputs';
import { Engine } from '../index';
import { addEngineFlags, engineConfig, type EngineFlags } from './options';
import { formatBytes, table, write } from './output';

/** Adds the command to the program. */
export function addPlanCommand(program: Command): void {
  const command = program
    .command('plan')
    .description('show the memory that an engine would need, without loading it')
    .option('--json', 'print the plan as JSON, in bytes');
  addEngineFlags(command).action(plan);
}

async function plan(flags: EngineFlags & { json?: boolean }): Promise<void> {
  const memory = await Engine.plan(engineConfig(flags));
  await write(flags.json ? `${JSON.stringify(memory, null, 2)}\n` : describePlan(memory));
}

function describePlan(plan: MemoryPlan): string {
  const rows = plan.ranks.map(({ rank, weightBytes, kvCacheBytes, activationBytes }) => {
    const total = weightBytes + kvCacheBytes + activationBytes;
    return [`${rank}`, ...[weightBytes, kvCacheBytes, activationBytes, total].map(formatBytes)];
  });
  const verdict = plan.fits ? 'fits' : 'does not fit';
  return [
    table(['rank', 'weights', 'KV cache', 'activations', 'total'], rows),
    `${verdict}: ${formatBytes(plan.totalBytes)} needed, ${formatBytes(plan.availableBytes)} available`,
    `KV cache of ${plan.kvCacheTokens} tokens, ${formatBytes(plan.kvCacheBytesPerToken)} each: ${concurrency(plan)} of ${plan.maxModelLen} tokens at once`,
    '',
  ].join('\n');
}

function concurrency({ maxConcurrency }: MemoryPlan): string {
  const count = Math.floor(maxConcurrency * 10) / 10;
  return `${count} ${count === 1 ? 'sequence' : 'sequences'}`;
}
