/**
 * `heddle chat`: a conversation in the terminal, or through pipes.
 *
 * @module
 */
import type { Command } from 'commander';

import type { ChatMessage, SamplingParams } from '../../types/options';
import type { GenerationStream } from '../../types/outputs';
import { InvalidArgumentError, type Engine } from '../index';
import { LineReader } from './line-reader';
import {
  addEngineFlags,
  addSamplingFlags,
  engineConfig,
  samplingParams,
  type EngineFlags,
  type SamplingFlags,
} from './options';
import { write } from './output';
import { openEngine } from './progress';

interface ChatFlags extends EngineFlags, SamplingFlags {
  system?: string;
}

const HELP = `/reset  forget the conversation
/exit   leave, as Ctrl-D does
Ctrl-C  stop an answer`;

/** Adds the command to the program. */
export function addChatCommand(program: Command): void {
  const command = program
    .command('chat')
    .description('talk with a model: one question a line, /help for what else can be typed')
    .option('--system <text>', "the conversation's system message");
  addSamplingFlags(addEngineFlags(command)).action(chat);
}

async function chat(flags: ChatFlags): Promise<void> {
  const engine = await openEngine(engineConfig(flags));
  const conversation = new Conversation(engine, samplingParams(flags), flags.system);
  try {
    await conversation.run();
  } finally {
    conversation.close();
    await engine.close();
  }
}

/** Question, answer, and what is remembered of both. */
class Conversation {
  private readonly reader = new LineReader(() => this.interrupt());
  private readonly interactive = process.stdin.isTTY;
  private messages: ChatMessage[];
  private answer: GenerationStream | null = null;
  private warned = false;

  constructor(
    private readonly engine: Engine,
    private readonly params: SamplingParams,
    private readonly system: string | undefined,
  ) {
    this.messages = this.beginning();
  }

  /** Until /exit or the end of the input. */
  async run(): Promise<void> {
    if (this.interactive) notice('one question a line; /help for more');
    for (;;) {
      const line = (await this.reader.next())?.trim();
      if (line === undefined || line === '/exit') return;
      this.warned = false;
      if (line.startsWith('/')) this.command(line);
      else if (line !== '') await this.ask(line);
    }
  }

  close(): void {
    this.reader.close();
  }

  private command(line: string): void {
    if (line === '/reset') {
      this.messages = this.beginning();
      notice('the conversation is forgotten');
    } else if (line === '/help') {
      notice(HELP);
    } else {
      notice(`unknown command ${line}; /help lists what there is`);
    }
  }

  private async ask(question: string): Promise<void> {
    const asked: ChatMessage[] = [...this.messages, { role: 'user', content: question }];
    try {
      const content = await this.stream(this.engine.chat(asked, this.params));
      // A question whose answer was stopped before its first word was not asked.
      if (content !== '') this.messages = [...asked, { role: 'assistant', content }];
    } catch (error) {
      // A person can ask something else, such as after a conversation that has become too long; a script cannot.
      if (!this.interactive || !(error instanceof InvalidArgumentError)) throw error;
      notice(`heddle: ${error.message}`);
    }
  }

  private async stream(answer: GenerationStream): Promise<string> {
    this.answer = answer;
    let content = '';
    let aborted = false;
    try {
      for await (const { text, finishReason } of answer) {
        content += text;
        aborted = finishReason === 'abort';
        await write(text);
      }
    } finally {
      this.answer = null;
      if (!content.endsWith('\n')) await write('\n');
    }
    if (aborted) notice('(stopped)');
    return content;
  }

  /** Ctrl-C: stops an answer; at the prompt says how to leave, and the second time leaves. */
  private interrupt(): void {
    if (this.answer) {
      this.answer.abort();
    } else if (this.warned) {
      this.reader.close();
    } else {
      this.warned = true;
      notice(`${this.interactive ? '\n' : ''}to leave, press Ctrl-C again or Ctrl-D, or type /exit`);
      this.reader.prompt();
    }
  }

  private beginning(): ChatMessage[] {
    return this.system === undefined ? [] : [{ role: 'system', content: this.system }];
  }
}

/** Says something that belongs to no answer. */
function notice(text: string): void {
  process.stderr.write(`${text}\n`);
}
