/**
 * The program `heddle` as a shell runs it: the compiled one, on the bundled model, in processes of its own.
 *
 * @module
 */
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import path from 'node:path';

import type { LATENCY_LEGEND } from '../../lib/bench/latency';
import type { Figures } from '../../lib/bench/legend';
import type { STARTUP_LEGEND } from '../../lib/bench/startup';
import type { THROUGHPUT_LEGEND } from '../../lib/bench/throughput';

const PROGRAM = path.resolve(__dirname, '../../dist/cli/main.js');
/** Runs the command after it in a terminal of its own, whose keyboard and screen are the pipes. */
const TERMINAL = ['python3', '-c', 'import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))'];
const hasTerminal = spawnSync('python3', ['-c', 'import pty; pty.openpty()']).status === 0;
const CTRL_C = '\x03';
const CTRL_D = '\x04';
const LONG_ANSWER = ['--ignore-eos', '--max-tokens', '700', '--seed', '1'];

/** A running `heddle`, and what it has written so far. */
class Program {
  stdout = '';
  stderr = '';
  private readonly child: ChildProcessWithoutNullStreams;
  private readonly exit: Promise<number | null>;

  /** @param launcher - A command that runs the one behind it. */
  constructor(args: string[], launcher: string[] = []) {
    const [command, ...rest] = [...launcher, process.execPath, PROGRAM, ...args];
    this.child = spawn(command!, rest);
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => (this.stdout += text));
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    // A program that does not read its input, or is gone, breaks the pipe.
    this.child.stdin.on('error', () => undefined);
    this.exit = once(this.child, 'close').then(([code]) => code as number | null);
    running.add(this);
  }

  type(text: string): void {
    this.child.stdin.write(text);
  }

  /** Ends the input and waits for the program. */
  async finish(input = ''): Promise<{ code: number | null; stdout: string; stderr: string }> {
    this.child.stdin.end(input);
    const code = await this.exit;
    return { code, stdout: this.stdout, stderr: this.stderr };
  }

  /** Waits for the end without ending the input. */
  ended(): Promise<number | null> {
    return this.exit;
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }

  /** Stops reading what the program writes, as `| head` does. */
  closeOutput(): void {
    this.child.stdout.destroy();
  }

  /** Waits until `condition` holds; fails when the program ends first. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      const { stdout, stderr } = this.child;
      const listening = new AbortController();
      const ended = this.exit.then((code) => {
        if (!condition()) throw new Error(`ended with ${code}:\n${this.stdout}\n${this.stderr}`);
      });
      await Promise.race([ended, ...[stdout, stderr].map((stream) => once(stream, 'data', listening))]);
      listening.abort();
    }
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }
}

const running = new Set<Program>();

afterEach(() => {
  for (const program of running) program.kill();
  running.clear();
});

const heddle = (args: string[], input = ''): ReturnType<Program['finish']> => new Program(args).finish(input);

describe('heddle generate', () => {
  const sampled = ['generate', '--prompt', 'She was', '--max-tokens', '24', '--temperature', '1'];

  it('writes the same text for the same seed and another for another', async () => {
    const first = await heddle([...sampled, '--seed', '5']);
    const again = await heddle([...sampled, '--seed', '5']);
    const other = await heddle([...sampled, '--seed', '6']);
    expect(first).toMatchObject({ code: 0 });
    expect(first.stdout.trim()).not.toBe('');
    expect(again.stdout).toBe(first.stdout);
    expect(other.stdout).not.toBe(first.stdout);
  });

  it('writes text and nothing else when piped', async () => {
    const args = ['generate', '--prompt', 'She was', '--max-tokens', '8', '--temperature', '0'];
    const { stdout, stderr } = await heddle(args);
    const { text } = JSON.parse((await heddle([...args, '--json'])).stdout) as { text: string };
    expect(stdout).toBe(`${text}\n`);
    expect(stderr).toBe('');
  });

  it('takes the prompt from stdin, less its final newline', async () => {
    const args = ['generate', '--max-tokens', '8', '--temperature', '0', '--json'];
    const { promptTokenIds: piped } = JSON.parse((await heddle(args, 'She was\n')).stdout) as {
      promptTokenIds: number[];
    };
    const { promptTokenIds: given } = JSON.parse((await heddle([...args, '--prompt', 'She was'])).stdout) as {
      promptTokenIds: number[];
    };
    expect(piped).toEqual(given);
  });

  it('gives the same tokens on two ranks as on one', async () => {
    const one = await heddle([...sampled, '--seed', '5', '--tp', '1']);
    const two = await heddle([...sampled, '--seed', '5', '--tp', '2']);
    expect(two).toMatchObject({ code: 0, stdout: one.stdout });
  });

  it('ends quietly when the reader of its output goes away', async () => {
    const program = new Program(['generate', '--prompt', 'She was', ...LONG_ANSWER]);
    await program.until(() => program.stdout !== '');
    program.closeOutput();
    expect(await program.ended()).toBe(0);
    expect(program.stderr).toBe('');
  });

  (existsSync('/dev/full') ? it : it.skip)('says why when its output cannot be written', async () => {
    const intoFullDisk = ['sh', '-c', 'exec "$@" > /dev/full', 'sh'];
    const { code, stderr } = await new Program(['generate', '--prompt', 'She was'], intoFullDisk).finish();
    expect(code).toBe(1);
    expect(stderr).toMatch(/^heddle: cannot write the output: ENOSPC[^\n]*\n$/);
  });
});

describe('help', () => {
  it.each([[['help']], [['help', 'generate']], [['--help']], [['generate', '--help']]])(
    'that is asked for with %j is no mistake',
    async (args) => {
      const { code, stdout, stderr } = await heddle(args);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(/^Usage: heddle /);
    },
  );

  it('that is shown because no command was named is one', async () => {
    const { code, stdout, stderr } = await heddle([]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain('Usage: heddle ');
  });
});

describe('wrong use of heddle', () => {
  it('ends with code 2 for a flag that does not exist', async () => {
    const { code, stdout, stderr } = await heddle(['generate', '--temprature', '1']);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(/^heddle: unknown option '--temprature'.*\n$/);
  });

  it.each([
    ['temperature', ['--temperature', 'warm'], '"warm"'],
    ['topP', ['--top-p', '1.5'], '1.5'],
    ['seed', ['--seed', '-1'], '-1'],
    ['parallel.tensorParallelSize', ['--tp', '3'], '3'],
    ['dtype', ['--dtype', 'float8'], '"float8"'],
    ['packedWeightCache', ['--packed-weight-cache', '/dev/null'], '"/dev/null"'],
  ])('names %s when its value is wrong', async (key, flags, value) => {
    const { code, stderr } = await heddle(['generate', '--prompt', 'She was', ...flags]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^heddle: [^\n]*\n$/);
    expect(stderr).toContain(`${key} must be`);
    expect(stderr).toContain(`received ${value}`);
  });

  it('names a model folder that is missing, in one line', async () => {
    const { code, stdout, stderr } = await heddle(['generate', '--model', '/nonexistent/model', '--prompt', 'a']);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^heddle: [^\n]*\/nonexistent\/model[^\n]*\n$/);
  });

  it('shows the stack of an error with --debug', async () => {
    const { code, stderr } = await heddle(['plan', '--model', '/nonexistent/model', '--debug']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^heddle: \w*Error: [^]*\n {4}at /);
  });
});

describe('heddle plan', () => {
  it('prints one row a rank, and the same figures as JSON', async () => {
    const shown = await heddle(['plan', '--tp', '2']);
    const { ranks, fits } = JSON.parse((await heddle(['plan', '--tp', '2', '--json'])).stdout) as {
      ranks: { weightBytes: number }[];
      fits: boolean;
    };
    expect(shown.code).toBe(0);
    expect(shown.stdout).toMatch(/^rank .*\n0 .*\n1 .*\n\n/);
    expect(ranks).toHaveLength(2);
    expect(ranks[0]!.weightBytes).toBeGreaterThan(1e6);
    expect(shown.stdout).toContain(fits ? '\nfits: ' : '\ndoes not fit: ');
  });
});

describe('heddle bench', () => {
  type Line = { repetition: number } & Figures<
    typeof LATENCY_LEGEND & typeof THROUGHPUT_LEGEND & typeof STARTUP_LEGEND
  >;
  const latency = ['latency', '--prompt-tokens', '20', '--max-tokens', '64', '--sequences', '2'];
  const throughput = ['throughput', '--requests', '5', '--concurrency', '2', '--prompt-tokens', '20'];
  const startup = ['startup'];
  const bench = async (args: string[]) => heddle(['bench', ...args]);
  const figures = async (args: string[]): Promise<Line[]> => {
    const { code, stdout, stderr } = await bench([...args, '--json']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const lines = stdout.trimEnd().split('\n');
    return lines.map((line) => JSON.parse(line) as Line);
  };

  it('latency prints what was asked for and what came, a line a repetition', async () => {
    const lines = await figures([...latency, '--repetitions', '3']);
    expect(lines.map(({ repetition }) => repetition)).toEqual([1, 2, 3]);
    for (const line of lines) {
      expect(line).toMatchObject({ bench: 'latency', model: 'tiny-lexicon' });
      expect(line).toMatchObject({ prompt_tokens: 20, max_tokens: 64, sequences: 2, communication_us: 0 });
      expect(line).toHaveProperty('load_s', expect.any(Number));
      for (const key of ['prefill_tok_s', 'decode_tok_s', 'ttft_ms', 'tpot_ms_median', 'read_gb_s'] as const) {
        expect([key, line[key] > 0]).toEqual([key, true]);
      }
      expect(line.tpot_ms_p99).toBeGreaterThanOrEqual(line.tpot_ms_median);
      expect(line.ops_us + line.overhead_us).toBeCloseTo(line.step_us, 3);
      // 8 layers of 4 heads of 64, keys and values, in two bytes: of 52 tokens, twice.
      expect(line.kv_bytes).toBe(8 * 4 * 64 * 2 * 2 * 52 * 2);
      expect(line.weight_bytes).toBeGreaterThan(1e7);
    }
  });

  it('latency tells collectives from the engine on two ranks', async () => {
    const [line] = await figures([...latency, '--repetitions', '1', '--tp', '2']);
    expect(line!.communication_us).toBeGreaterThan(0);
    expect(line!.ops_us + line!.communication_us + line!.overhead_us).toBeCloseTo(line!.step_us, 3);
  });

  it('throughput counts the tokens of all requests, spread by seed', async () => {
    const args = [...throughput, '--max-tokens', '8', '--repetitions', '2'];
    for (const line of await figures(args)) {
      expect(line).toMatchObject({ requests: 5, concurrency: 2, length_spread: 0, preemptions: 0 });
      expect(line).toMatchObject({ prompt_tokens: 100, generated_tokens: 40 });
      expect(line.total_tok_s).toBeCloseTo(140 / line.duration_s, 3);
      expect(line.requests_per_s).toBeCloseTo(5 / line.duration_s, 3);
    }
    const spread = [...args, '--length-spread', '0.5', '--seed'];
    const [[one, again], [other]] = [await figures([...spread, '1']), await figures([...spread, '2'])];
    const tokens = (line: Line) => [line.prompt_tokens, line.generated_tokens];
    expect(tokens(again!)).toEqual(tokens(one!));
    expect(tokens(other!)).not.toEqual(tokens(one!));
  });

  it('throughput counts the preemptions of a KV cache that is too small', async () => {
    // 4 sequences of 4 blocks want 16; a block of 16 tokens takes 128 KiB, and one is never used.
    const blocks = (8 + 1) * 128 * 1024;
    const args = ['--requests', '4', '--concurrency', '4', '--max-tokens', '44', '--kv-cache-bytes', `${blocks}`];
    const [line] = await figures([...throughput, ...args, '--repetitions', '1']);
    expect(line!.preemptions).toBeGreaterThan(0);
    expect(line!.generated_tokens).toBe(4 * 44);
  });

  it('startup times creation, first token and end from one beginning', async () => {
    const lines = await figures([...startup, '--repetitions', '2']);
    expect(lines).toHaveLength(2);
    for (const line of lines) {
      expect(line.create_s).toBeGreaterThan(0);
      expect(line.first_token_s).toBeGreaterThan(line.create_s);
      expect(line.closed_s).toBeGreaterThan(line.first_token_s);
    }
  });

  it.each([
    [latency, /median +min +max\nprefill, tok\/s +\d/],
    [throughput, /median +min +max\ntotal, tok\/s +\d/],
    [startup, /first, cold +median, warm +min, warm +max, warm\ncreated, s +\d/],
  ])('shows %j as a table', async (args, table) => {
    const { code, stdout, stderr } = await bench([...args, '--repetitions', '2']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^tiny-lexicon: .*prompt_tokens \d+.*, repetitions 2\n/);
    expect(stdout).toMatch(table);
  });

  it('startup shows no warm figures of a single, cold engine', async () => {
    expect((await bench([...startup, '--repetitions', '1'])).stdout).toMatch(/created, s +[\d.]+ +- +- +-\n/);
  });

  it.each([latency, throughput, startup])('explains every figure that %s prints', async (...args) => {
    const [line] = await figures([...args, '--repetitions', '1']);
    const { stdout } = await bench([args[0]!, '--help']);
    const legend = stdout.slice(stdout.indexOf('\nFigures:\n'));
    const printed = Object.keys(line!);
    const measured = printed.slice(printed.indexOf('repetition') + 1);
    expect(measured.length).toBeGreaterThan(2);
    for (const key of measured) expect(legend).toMatch(new RegExp(`^ {2}${key} +\\S`, 'm'));
  });

  it.each([
    ['latency', 'promptTokens', '--prompt-tokens', '0', 'an integer of at least 1, received 0'],
    ['latency', 'maxTokens', '--max-tokens', '1', 'an integer of at least 2, received 1'],
    ['latency', 'sequences', '--sequences', 'many', 'an integer of at least 1, received "many"'],
    ['latency', 'repetitions', '--repetitions', '1.5', 'an integer of at least 1, received 1.5'],
    ['throughput', 'requests', '--requests', '-1', 'an integer of at least 1, received -1'],
    ['throughput', 'concurrency', '--concurrency', '0', 'an integer of at least 1, received 0'],
    ['throughput', 'lengthSpread', '--length-spread', '1.5', 'a number from 0 to 1, received 1.5'],
    ['throughput', 'lengthSpread', '--length-spread', 'wide', 'a number from 0 to 1, received "wide"'],
    ['throughput', 'seed', '--seed', '-2', 'an integer of at least 0, received -2'],
    ['startup', 'promptTokens', '--prompt-tokens', '', 'an integer of at least 1, received ""'],
    ['startup', 'repetitions', '--repetitions', '0', 'an integer of at least 1, received 0'],
  ])('%s names %s when its value is wrong', async (name, key, flag, value, sentence) => {
    const { code, stdout, stderr } = await bench([name, flag, value]);
    expect({ code, stdout, stderr }).toEqual({ code: 1, stdout: '', stderr: `heddle: ${key} must be ${sentence}\n` });
  });

  it.each([[[]], [['speed']], [['--json']], [['startup', '--sequences', '2']]])(
    'is used wrongly with %j',
    async (args) => {
      const { code, stdout, stderr } = await bench(args);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).not.toBe('');
    },
  );
});

describe('heddle chat', () => {
  it('answers each line of a pipe and ends with code 0', async () => {
    const args = ['chat', '--temperature', '0', '--max-tokens', '40'];
    const { code, stdout, stderr } = await heddle(args, 'What does "river" mean?\n/reset\nWhat does "river" mean?\n');
    expect({ code, stderr }).toEqual({ code: 0, stderr: 'the conversation is forgotten\n' });
    const [first, second, ...rest] = stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.trim());
    expect(first).not.toBe('');
    // Nothing of the first question is left after /reset.
    expect(second).toBe(first);
    expect(rest).toEqual([]);
  });

  it('leaves at /exit, whatever follows', async () => {
    const { code, stdout } = await heddle(['chat', '--max-tokens', '8'], '/exit\nWhat does "river" mean?\n');
    expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
  });

  it('stops an answer, and not the program, at SIGINT', async () => {
    const program = new Program(['chat', ...LONG_ANSWER]);
    program.type('What does "river" mean?\n');
    await program.until(() => program.stdout !== '');
    program.signal('SIGINT');
    await program.until(() => program.stderr.includes('(stopped)'));
    const stopped = program.stdout.length;
    program.type('What does "harbor" mean?\n');
    await program.until(() => program.stdout.length > stopped);
    program.signal('SIGINT');
    const { code, stderr } = await program.finish();
    expect({ code, stderr }).toEqual({ code: 0, stderr: '(stopped)\n(stopped)\n' });
  });

  it('says how to leave at SIGINT between answers, and leaves at the second', async () => {
    const program = new Program(['chat', '--temperature', '0', '--max-tokens', '4']);
    program.type('What does "river" mean?\n');
    await program.until(() => program.stdout.endsWith('\n'));
    program.signal('SIGINT');
    await program.until(() => program.stderr.includes('to leave'));
    program.signal('SIGINT');
    expect(await program.ended()).toBe(0);
  });
});

(hasTerminal ? describe : describe.skip)('heddle in a terminal', () => {
  const WIPE = '\r\x1b[2K';
  const open = (args: string[]): Program => new Program(args, TERMINAL);
  const shown = async (program: Program, text: string | RegExp): Promise<void> =>
    program.until(() => (typeof text === 'string' ? program.stdout.includes(text) : text.test(program.stdout)));

  it('shows how far loading is, and wipes that line', async () => {
    const program = open(['chat']);
    await shown(program, '> ');
    const loading = program.stdout.lastIndexOf('heddle: loading tiny-lexicon ');
    expect(loading).toBeGreaterThan(0);
    expect(program.stdout.slice(loading)).toContain(`%${WIPE}one question a line`);
  });

  it('stops an answer, and not the program, at Ctrl-C', async () => {
    const program = open(['chat', ...LONG_ANSWER]);
    await shown(program, '> ');
    program.type('What does "river" mean?\r');
    await shown(program, /mean\?\r+\n[^]*[a-z]/);
    program.type(CTRL_C);
    await shown(program, /\(stopped\)[^]*> /);
    program.type('/reset\r');
    await shown(program, /the conversation is forgotten[^]*> /);
    program.type(CTRL_D);
    expect(await program.ended()).toBe(0);
  });

  it('ends at Ctrl-D', async () => {
    const program = open(['chat']);
    await shown(program, '> ');
    program.type(CTRL_D);
    expect(await program.ended()).toBe(0);
  });

  it('ends at the second Ctrl-C between answers, and says so at the first', async () => {
    const program = open(['chat']);
    await shown(program, '> ');
    program.type(CTRL_C);
    await shown(program, /to leave, press Ctrl-C again[^]*> /);
    program.type(CTRL_C);
    expect(await program.ended()).toBe(0);
  });

  it('is ended by Ctrl-C where there is no conversation', async () => {
    const program = open(['generate', '--prompt', 'She was', ...LONG_ANSWER]);
    await program.until(() => /^[^%]*[a-z]/.test(program.stdout.slice(program.stdout.lastIndexOf(WIPE) + WIPE.length)));
    program.type(CTRL_C);
    expect(await program.ended()).not.toBe(0);
  });
});
