// What a figure belongs to.
import { readFileSync } from 'node:fs';
import os from 'node:os';

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

function cpuFlags() {
  try {
    const [, flags = ''] = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8')) ?? [];
    const present = new Set(flags.split(/\s+/));
    return SHOWN_FLAGS.filter((flag) => present.has(flag));
  } catch {
    return [];
  }
}
