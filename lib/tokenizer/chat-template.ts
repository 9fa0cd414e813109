/**
 * A checkpoint's chat template: messages to the text that its model was trained on.
 *
 * @module
 */
import { randomUUID } from 'node:crypto';

import type { ChatMessage } from '../../types/options';
import { InvalidArgumentError, ModelFormatError } from '../errors';
import { Slots } from './slots';
import { TemplateFault, TemplateWorker } from './template-worker';

/** How to render. */
export interface ChatTemplateOptions {
  /** Whether to end with the beginning of an assistant's turn. */
  addGenerationPrompt: boolean;
  /** Whether to leave the last message open. */
  continueFinalMessage: boolean;
}

const RENDER_BUDGET_MS = 2000;
const TOKEN_NAMES = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];

/** Renders messages as transformers' `apply_chat_template` does, in a thread of its own and within two seconds. */
export class ChatTemplate {
  readonly #worker: TemplateWorker;
  /** The thread renders one conversation at a time: those that wait for it can be dropped here. */
  readonly #slots = new Slots(1);
  /** The tokenizer's special tokens, by name. */
  readonly #tokens: Readonly<Record<string, string>>;

  private constructor(template: string, tokens: Record<string, string>) {
    this.#worker = new TemplateWorker(template, RENDER_BUDGET_MS);
    this.#tokens = tokens;
  }

  /**
   * Finds the template of a checkpoint; null when it has none.
   *
   * @param config - Parsed content of `tokenizer_config.json`, or undefined. Its `chat_template` is the template, or a
   *   list of named ones of which `default` counts.
   * @param file - Content of `chat_template.jinja`, which goes first, or undefined.
   * @throws ModelFormatError for a config of another kind. What a template does shows only when it renders.
   */
  static find(config: unknown, file: string | undefined): ChatTemplate | null {
    if (config === undefined && file === undefined) return null;
    const content = config ?? {};
    if (typeof content !== 'object' || Array.isArray(content)) {
      throw new ModelFormatError('tokenizer_config.json is broken: it must be an object');
    }
    const record = content as Record<string, unknown>;
    const template = file ?? defaultTemplate(record['chat_template']);
    return template === null ? null : new ChatTemplate(template, specialTokens(record));
  }

  /**
   * The text of a conversation, special tokens included: it is to be tokenised without adding more.
   *
   * @param signal - A conversation that still waits when this is aborted is not rendered.
   * @throws InvalidArgumentError when the template refuses the messages.
   * @throws ModelFormatError when the template is broken, or takes too long.
   */
  async render(messages: readonly ChatMessage[], options: ChatTemplateOptions, signal?: AbortSignal): Promise<string> {
    const end = options.continueFinalMessage ? `heddle${randomUUID()}` : null;
    const context = {
      ...this.#tokens,
      messages: end === null ? messages : withEnd(messages, end),
      add_generation_prompt: options.addGenerationPrompt,
      continue_final_message: options.continueFinalMessage,
      tools: null,
      documents: null,
    };
    try {
      const text = await this.#slots.run(() => this.#worker.render(context), signal);
      return end === null ? text : cutAtEnd(text, end, messages.at(-1)!.content);
    } catch (error) {
      if (!(error instanceof TemplateFault)) throw error;
      if (error.raised) throw new InvalidArgumentError(`the chat template refuses the messages: ${error.message}`);
      throw new ModelFormatError(`the chat template is broken: ${error.message}`);
    }
  }

  /** Ends the thread. Idempotent. */
  close(): Promise<void> {
    return this.#worker.close();
  }
}

function defaultTemplate(value: unknown): string | null {
  if (value === undefined || value === null) return null;
  if (typeof value === 'string') return value;
  const named = Array.isArray(value) ? (value as ({ name?: unknown; template?: unknown } | null)[]) : [];
  const template = named.find((entry) => entry?.name === 'default')?.template;
  if (typeof template === 'string') return template;
  throw new ModelFormatError(
    'tokenizer_config.json is broken: chat_template must be a string or a list with a template named "default"',
  );
}

/** A token is a string, or an object with its `content`. */
function specialTokens(config: Record<string, unknown>): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const name of TOKEN_NAMES) {
    const value = config[name];
    const content = typeof value === 'object' && value !== null ? (value as { content?: unknown }).content : value;
    if (typeof content === 'string') tokens[name] = content;
  }
  return tokens;
}

/**
 * Marks where the last message ends. The space shows what the template does to spaces there: it is part of the mark, and
 * goes when the template trims messages, as then the content's own would have gone.
 */
function withEnd(messages: readonly ChatMessage[], end: string): ChatMessage[] {
  const last = messages.at(-1)!;
  return [...messages.slice(0, -1), { ...last, content: `${last.content}${end} ` }];
}

/** Drops the mark and what the template put behind it. */
function cutAtEnd(text: string, end: string, content: string): string {
  const at = text.lastIndexOf(end);
  const kept = text.slice(0, Math.max(at, 0));
  const words = content.trim();
  if (at < 0 || !kept.trimEnd().endsWith(words)) {
    throw new InvalidArgumentError(
      'continueFinalMessage must be false: the chat template changes the content of the last message',
    );
  }
  const isTrimmed = !text.startsWith(`${end} `, at);
  // Spaces before no words at all are the template's own.
  return isTrimmed && words !== '' ? kept.trimEnd() : kept;
}
