/**
 * `heddle generate`: text from a prompt.
 *
 * @module
 */
import { text as readAll } from 'node:stream/consumers';

import type { Command } from 'commander';

import type { GenerationStream } from '../../types/outputs';
import {
  addEngineFlags,
  addSamplingFlags,
  engineConfig,
  samplingParams,
  UsageError,
  type EngineFlags,
  type SamplingFlags,
} from './options';
import { write } from './output';
import { openEngine } from './progress';

interface GenerateFlags extends EngineFlags, SamplingFlags {
  prompt?: string;
  json?: boolean;
}

/** Adds the command to the program. */
export function addGenerateCommand(program: Command): void {
  const command = program
    .command('generate')
    .description('stream text that continues a prompt')
    .option('-p, --prompt <text>', 'what to continue (default: what stdin holds, less a final newline)')
    .option('--json', 'print one line of JSON at the end instead of text as it comes');
  addSamplingFlags(addEngineFlags(command)).action(generate);
}

async function generate(flags: GenerateFlags): Promise<void> {
  const config = engineConfig(flags);
  const prompt = flags.prompt ?? (await promptFromStdin());
  const engine = await openEngine(config);
  try {
    const stream = engine.generate(prompt, samplingParams(flags));
    await (flags.json ? printJson(stream) : printText(stream));
  } finally {
    await engine.close();
  }
}

async function promptFromStdin(): Promise<string> {
  if (process.stdin.isTTY) throw new UsageError('no prompt: pass --prompt TEXT, or text on stdin');
  return (await readAll(process.stdin)).replace(/\r?\n$/, '');
}

async function printText(stream: GenerationStream): Promise<void> {
  let last = '';
  for await (const { text } of stream) {
    last = text || last;
    await write(text);
  }
  if (!last.endsWith('\n')) await write('\n');
}

async function printJson(stream: GenerationStream): Promise<void> {
  const { promptTokenIds, outputs, usage, timing } = await stream.final();
  const { text, tokenIds, finishReason, stopReason } = outputs[0]!;
  const line = {
    text,
    finishReason,
    stopReason,
    promptTokenIds: Array.from(promptTokenIds),
    tokenIds: Array.from(tokenIds),
    usage,
    timing,
  };
  await write(`${JSON.stringify(line)}\n`);
}
