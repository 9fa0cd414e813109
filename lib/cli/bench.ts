/**
 * `heddle bench`: what a model does on this machine.
 *
 * @module
 */
import type { Command } from 'commander';

import { addLatencyCommand } from './bench-latency';
import { addStartupCommand } from './bench-startup';
import { addThroughputCommand } from './bench-throughput';

/** Adds the command, with one below it for each benchmark, to the program. */
export function addBenchCommand(program: Command): void {
  const command = program.command('bench').description('measure latency, throughput or start-up of a model');
  addLatencyCommand(command);
  addThroughputCommand(command);
  addStartupCommand(command);
}
