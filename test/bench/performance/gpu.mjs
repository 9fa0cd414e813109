// What the engine reaches on a GPU, beside what it should.
import path from 'node:path';

import { root, run } from '../../../scripts/common.mjs';
import { jsonLines } from '../sides.mjs';
import { describe } from '../statistics.mjs';

const atLeast = (bound, unit) => ({ text: `≥ ${grouped(bound)} ${unit}`, isMet: (value) => value >= bound });
const atMost = (bound, unit) => ({ text: `≤ ${grouped(bound)} ${unit}`, isMet: (value) => value <= bound });

const OF_READING = atLeast(90, '% of reading');
const DECODE = { 32: atLeast(5000, 'tok/s'), 128: atLeast(15000, 'tok/s') };
const PREFILL = atLeast(38000, 'tok/s');
const OF_NATIVE = atLeast(98, '%');
const IDLE = atMost(1, '% of a step');
const HOST = { 256: atMost(50, 'µs at 256') };
const OF_COPYING = atLeast(80, '% of copying');
const FIRST_TOKEN = atMost(3, 's');
const PREFILL_ATTENTION = {
  op: 'prefill attention, 32 heads of 128, 8 KV heads, by tokens',
  size: '4096',
  aim: atLeast(400, 'TFLOP/s'),
};
const DECODE_ATTENTION = { op: 'decode attention, by sequences and tokens', size: '8 x 16384', aim: OF_READING };

export const gpuSection = {
  text:
    'Llama-3.1-8B shape, bfloat16, random weights, through the JavaScript API. Medians with their spread; **bold** is what ' +
    'misses its aim.',
  header: ['| what | figure | aim | command |', '|---|---|---|---|'],
  rows: [
    { id: 'requests', measure: measureRequests, lines: ([sample]) => tableLines(sample, requestRows(sample.lines)) },
    { id: 'load', measure: measureLoad, lines: ([sample]) => tableLines(sample, loadRows(sample.lines)) },
    { id: 'prefill_attention', lines: ([sample]) => tableLines(sample, [prefillAttentionRow(sample.lines)]) },
    { id: 'decode_attention', lines: ([sample]) => tableLines(sample, [decodeAttentionRow(sample.lines)]) },
  ],
};

function measureRequests({ options }) {
  const beside = ['--native', 'build/bench/engine', '--read', 'build/cuda/bench/read_bench'];
  return measure(['--case', 'decode,prefill', ...beside, ...options]);
}

function measureLoad({ options }) {
  return measure(['--case', 'load', '--copy', 'build/cuda/bench/copy_bench', ...options]);
}

/** The command, and what it printed. */
async function measure(args) {
  const program = path.join(root, 'test/bench/gpu.mjs');
  const { output } = await run(process.execPath, [program, ...args], { capture: true });
  return { command: `npm run bench:gpu -- ${args.join(' ')}`, lines: jsonLines(output) };
}

// A row of the table is `{ what, figure, aim }`, the last two as text.

function tableLines({ command }, rows) {
  return rows.map(({ what, figure, aim = '' }, i) => {
    return `| ${what} | ${figure} | ${aim} | ${i === 0 ? `\`${command}\`` : 'same'} |`;
  });
}

function requestRows(lines) {
  const decodes = lines.filter(({ name }) => name === 'decode');
  const prefills = lines.filter(({ name }) => name === 'prefill');
  const batches = decodes.map(({ batch }) => batch).join(', ');
  const rows = [...decodes.map(decodeRow), ...prefills.map(prefillRow)];
  const beside = [...decodes, ...prefills].filter(({ ofNative }) => ofNative !== undefined);
  if (beside.length > 0) {
    rows.push({
      what: `JavaScript against the loop without it: decode of ${batches} sequences; prompt`,
      figure: `${beside.map(({ ofNative }) => judged((100 * ofNative).toFixed(1), 100 * ofNative, OF_NATIVE)).join(', ')} %`,
      aim: OF_NATIVE.text,
    });
  }
  const stepped = decodes.filter(({ stepMicroseconds }) => stepMicroseconds !== undefined);
  if (stepped.length > 0) rows.push(...stepRows(stepped, batches));
  const { seconds } = lines.find(({ name }) => name === 'create');
  return [...rows, { what: '`Engine.create` with random weights, the first of a process', figure: `${seconds} s` }];
}

function decodeRow({ batch, prompt, output, tokensPerSecond, weightBytesPerSecond, ofReading }) {
  const what = `decode, ${batch} sequence${batch > 1 ? 's' : ''}, ${prompt} in, ${output} out`;
  const rate = spreadOf(tokensPerSecond, 'tok/s');
  if (ofReading !== undefined) {
    const share = 100 * ofReading;
    const text = judged(`${share.toFixed(1)} % of reading`, share, OF_READING);
    return {
      what,
      figure: `${rate}: ${describe(weightBytesPerSecond / 1e12)} TB/s of weights, ${text}`,
      aim: OF_READING.text,
    };
  }
  const aim = DECODE[batch];
  return { what, figure: aim ? judged(rate, tokensPerSecond.median, aim) : rate, aim: aim?.text };
}

function prefillRow({ prompt, tokensPerSecond }) {
  const figure = judged(spreadOf(tokensPerSecond, 'tok/s'), tokensPerSecond.median, PREFILL);
  return { what: `prompt of ${grouped(prompt)} tokens`, figure, aim: PREFILL.text };
}

function stepRows(decodes, batches) {
  const idle = decodes.map(({ stepMicroseconds: { idle, total } }) => {
    const share = (100 * idle.median) / total.median;
    return judged(share.toFixed(2), share, IDLE);
  });
  const host = decodes.map(
    ({
      batch,
      stepMicroseconds: {
        host: { median },
      },
    }) => {
      return HOST[batch] ? judged(describe(median), median, HOST[batch]) : describe(median);
    },
  );
  return [
    {
      what: `device idle between two steps that decode ${batches} sequences`,
      figure: `${idle.join(', ')} % of a step`,
      aim: IDLE.text,
    },
    {
      what: `host's own work a step, hidden behind the device's: ${batches}`,
      figure: `${host.join(', ')} µs`,
      aim: HOST[256].text,
    },
  ];
}

function loadRows(lines) {
  const { gigabytes, first, create, firstToken, gbPerSecond, ofCopying } = lines.find(({ name }) => name === 'load');
  const share = 100 * ofCopying;
  const firsts = [firstToken.median, first.firstToken].map((value) =>
    judged(`${describe(value)} s`, value, FIRST_TOKEN),
  );
  return [
    {
      what: `weights of ${gigabytes} GB from the page cache to the device, after the first engine of a process`,
      figure: `${spreadOf(gbPerSecond, 'GB/s')}, ${judged(`${share.toFixed(0)} % of copying`, share, OF_COPYING)}`,
      aim: OF_COPYING.text,
    },
    {
      what: '`Engine.create` with them; the first of a process',
      figure: `${spreadOf(create, 's')}; ${describe(first.create)} s`,
    },
    {
      what: 'from its call to the first token; the first of a process',
      figure: firsts.join('; '),
      aim: FIRST_TOKEN.text,
    },
  ];
}

function prefillAttentionRow(lines) {
  const { op, size, aim } = PREFILL_ATTENTION;
  const line = lines.find((each) => each.op === op && each.size === size);
  return { what: `${op}: ${size}`, figure: judged(spreadOf(ratesOf(line), line.unit), line.rate, aim), aim: aim.text };
}

function decodeAttentionRow(lines) {
  const { op, size, aim } = DECODE_ATTENTION;
  const line = lines.find((each) => each.op === op && each.size === size);
  const share = 100 * line.share;
  const text = judged(`${share.toFixed(1)} % of reading`, share, aim);
  return { what: `${op}: ${size}`, figure: `${spreadOf(ratesOf(line), line.unit)}, ${text}`, aim: aim.text };
}

/** A kernel's rate with the spread of its times. */
function ratesOf({ rate, microseconds, from, to }) {
  return { median: rate, from: (rate * microseconds) / to, to: (rate * microseconds) / from };
}

function spreadOf({ median, from, to }, unit) {
  return `${grouped(median)} ${unit} (${grouped(from)}..${grouped(to)})`;
}

/** In bold where it misses the aim. */
function judged(text, value, aim) {
  return aim.isMet(value) ? text : `**${text}**`;
}

function grouped(value) {
  return value.toLocaleString('en-US', { maximumSignificantDigits: 4 });
}
