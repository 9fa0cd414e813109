/**
 * What must hold of a `tokenizer.json` before the `tokenizers` package sees it. That package takes some broken files for
 * bugs of its own and ends the process with them, at loading or at the first text.
 *
 * @module
 */
import { ModelFormatError } from '../errors';
import { charsmapFault } from './precompiled-charsmap';

type Component = Record<string, unknown>;

/** As deep as the `tokenizers` package reads JSON; each sequence adds two levels. */
const MAX_DEPTH = 60;

/**
 * Checks the parsed content. Shapes that the package itself refuses are left to it.
 *
 * @throws ModelFormatError naming the fault.
 */
export function checkTokenizerJson(tokenizer: unknown): void {
  if (!isObject(tokenizer)) return;
  const check = (key: string, children: string, checkOne: (component: Component) => void): void => {
    for (const component of flatten(tokenizer[key], key, children)) checkOne(component);
  };
  check('normalizer', 'normalizers', checkNormalizer);
  check('pre_tokenizer', 'pretokenizers', checkPreTokenizer);
  check('post_processor', 'processors', checkPostProcessor);
  if (isObject(tokenizer['model'])) checkModel(tokenizer['model']);
}

/** A component, or those of a sequence of sequences. */
function flatten(value: unknown, key: string, children: string, depth = 0): Component[] {
  if (depth > MAX_DEPTH) throw broken(`${key} must not be nested deeper than ${MAX_DEPTH} times`);
  if (!isObject(value)) return [];
  if (value['type'] !== 'Sequence') return [value];
  const list: unknown = value[children];
  return Array.isArray(list) ? list.flatMap((entry) => flatten(entry, key, children, depth + 1)) : [];
}

function checkNormalizer(normalizer: Component): void {
  switch (normalizer['type']) {
    case 'Precompiled': {
      const fault = charsmapFault(normalizer['precompiled_charsmap']);
      if (fault !== null) throw broken(`the precompiled_charsmap of normalizer Precompiled ${fault}`);
      return;
    }
    case 'Prepend':
      if (normalizer['prepend'] === '') throw broken('normalizer Prepend must prepend something');
      return;
    case 'Replace':
      if (matchesNothing(normalizer['pattern'])) {
        throw broken('the pattern of normalizer Replace must match something, not the beginning of a text alone');
      }
  }
}

/** Whether a pattern finds an empty match at the beginning of a text. */
function matchesNothing(pattern: unknown): boolean {
  if (!isObject(pattern)) return false;
  if (pattern['String'] === '') return true;
  const expression = compile(pattern['Regex']);
  return expression !== null && ['x', ' ', '\n'].some((text) => expression.exec(text)?.[0] === '');
}

/** Anchored at the beginning. Null for what is not an expression of JavaScript's. */
function compile(source: unknown): RegExp | null {
  if (typeof source !== 'string') return null;
  try {
    return new RegExp(source, 'uy');
  } catch {
    return null;
  }
}

function checkPreTokenizer({ type, length }: Component): void {
  if (type === 'FixedLength' && length === 0)
    throw broken('the length of pre_tokenizer FixedLength must be at least 1');
}

/** The template for pairs of texts is never used. */
function checkPostProcessor({ type, single, special_tokens: known }: Component): void {
  if (type !== 'TemplateProcessing' || !Array.isArray(single)) return;
  for (const piece of single as unknown[]) {
    if (!isObject(piece)) continue;
    const { Sequence: sequence, SpecialToken: token } = piece;
    if (isObject(sequence) && sequence['id'] === 'B') {
      throw broken('post_processor TemplateProcessing must use sequence A alone for a single text, and uses B');
    }
    if (isObject(token) && !(isObject(known) && Object.hasOwn(known, String(token['id'])))) {
      const name = JSON.stringify(String(token['id']).slice(0, 60));
      throw broken(`post_processor TemplateProcessing uses token ${name}, which its special_tokens lack`);
    }
  }
}

/** Joining two tokens takes the prefix off the second. */
function checkModel({ type, merges, continuing_subword_prefix: prefix }: Component): void {
  if ((type !== undefined && type !== 'BPE') || typeof prefix !== 'string' || prefix === '') return;
  if (!Array.isArray(merges)) return;
  const prefixBytes = Buffer.byteLength(prefix);
  for (const merge of merges as unknown[]) {
    const second: unknown = Array.isArray(merge) ? merge[1] : String(merge).split(' ')[1];
    if (typeof second === 'string' && Buffer.byteLength(second) < prefixBytes) {
      throw broken('model.merges must join tokens that are at least as long as continuing_subword_prefix');
    }
  }
}

function isObject(value: unknown): value is Component {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function broken(fault: string): ModelFormatError {
  return new ModelFormatError(`tokenizer.json is broken: ${fault}`);
}
