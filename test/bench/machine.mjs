// What a figure belongs to.
import { readFileSync } from 'node:fs';
import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

import { run } from '../../scripts/common.mjs';

const SHOWN_FLAGS = 'avx2 fma f16c avx512f avx512_bf16 avx512_vnni amx_bf16 amx_int8'.split(' ');

/** Facts of this machine: CPU, cores, memory, instruction sets that matter, Node. */
export function machineFacts() {
  return {
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    cores: os.availableParallelism(),
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    isa: cpuFlags(),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
  };
}

/** Name and driver of the first GPU; `none` where there is no saying. */
export async function gpuFacts() {
  const query = ['--query-gpu=name,driver_version', '--format=csv,noheader'];
  const { output } = await run('nvidia-smi', query, { capture: true }).catch(() => ({ output: 'none, none' }));
  const [gpu, driver] = output.split('\n')[0].split(', ');
  return { gpu, driver };
}

function cpuFlags() {
  try {
    const [, flags = ''] = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8')) ?? [];
    const present = new Set(flags.split(/\s+/));
    return SHOWN_FLAGS.filter((flag) => present.has(flag));
  } catch {
    return [];
  }
}

/** Share of CPU time, 0 to 1, that other programs take now; figures of a busy machine mean little. */
export async function shareTakenByOthers() {
  const before = cpuTimes();
  await sleep(1000);
  const after = cpuTimes();
  return 1 - (after.idle - before.idle) / Math.max(1, after.all - before.all);
}

function cpuTimes() {
  const times = os.cpus().map((cpu) => cpu.times);
  const sum = (numbers) => numbers.reduce((total, n) => total + n, 0);
  return { idle: sum(times.map(({ idle }) => idle)), all: sum(times.flatMap((time) => Object.values(time))) };
}
