#!/usr/bin/env node
/**
 * The program `heddle`.
 *
 * Exit codes: 0 done, 1 failed, 2 wrong usage. An error is one line on stderr; `--debug` adds its stack.
 *
 * @module
 */
import { inspect } from 'node:util';

import { Command, CommanderError } from 'commander';

import { addBenchCommand } from './bench';
import { addChatCommand } from './chat';
import { addGenerateCommand } from './generate';
import { packageVersion, UsageError } from './options';
import { exitWhenOutputFails } from './output';
import { addPlanCommand } from './plan';
import { addPruneCommand } from './prune';
import { addQuantizeCommand } from './quantize';

function createProgram(): Command {
  const program = new Command('heddle')
    .description('A tensor-parallel LLM engine inside Node.js')
    .version(packageVersion(), '-V, --version', 'show the version')
    .exitOverride()
    .configureOutput({ outputError: (text, print) => print(`heddle: ${oneLine(text.replace(/^error: /, ''))}\n`) });
  addGenerateCommand(program);
  addChatCommand(program);
  addPlanCommand(program);
  addQuantizeCommand(program);
  addPruneCommand(program);
  addBenchCommand(program);
  return program;
}

async function main(argv: string[]): Promise<number> {
  exitWhenOutputFails();
  try {
    await createProgram().parseAsync(argv);
    return 0;
  } catch (error) {
    // Commander has said what is wrong, or shown the help that was asked for.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    report(error, argv.includes('--debug'));
    return error instanceof UsageError ? 2 : 1;
  }
}

function report(error: unknown, debug: boolean): void {
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`heddle: ${debug ? inspect(error) : oneLine(message)}\n`);
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, ' ');
}

void main(process.argv).then((code) => {
  process.exitCode = code;
});
