/**
 * `NcclOptions`: checks, and what they are to NCCL: fields of a communicator's configuration, or environment variables.
 *
 * @module
 */
import type { NcclOptions } from '../../types/options';
import { InvalidArgumentError } from '../errors';
import { boolean, describe, integer, label, oneOf, readObject, refuse, type Check, type Checks } from './validate';

/** Validated {@link NcclOptions}. */
export interface ResolvedNcclOptions {
  /** Of each communicator; -1 and `''` leave the choice to NCCL. */
  readonly communicator: NcclCommunicatorConfig;
  /** Variables of NCCL that options stand for. */
  readonly variables: readonly NcclVariable[];
}

/** Fields of `ncclConfig_t`. */
export interface NcclCommunicatorConfig {
  readonly minCtas: number;
  readonly maxCtas: number;
  readonly cgaClusterSize: number;
  readonly nvlsCtas: number;
  /** 0: default; 1: efficiency; 2: zero. */
  readonly ctaPolicy: number;
  readonly collnetEnable: number;
  readonly trafficClass: number;
  readonly channelsPerNetPeer: number;
  readonly nvlinkCentricScheduling: number;
  readonly netName: string;
  readonly commName: string;
}

/** An option as an environment variable. */
interface NcclVariable {
  readonly name: string;
  /** As NCCL reads it. */
  readonly value: string;
  /** Whether this is the only way to tell NCCL; a field of the communicator's configuration is what it overrides. */
  readonly processWide: boolean;
  /** The option as given, for messages. */
  readonly given: string;
}

type Value = string | number | boolean;

/** The variable of an option, and the option's value as NCCL spells it. */
type VariableTable = { readonly [K in keyof NcclOptions]?: readonly [name: string, spell: (value: Value) => string] };

const MAX_CTAS = 64;
const CTA_POLICIES = ['default', 'efficiency', 'zero'] as const;

/** A power of two: NCCL cuts the buffer into equal, aligned steps. */
const bufferBytes: Check<number> = (value, key) => {
  const isPower = typeof value === 'number' && Number.isInteger(value) && Number.isInteger(Math.log2(value));
  const inRange = isPower && value >= 2 ** 16 && value <= 2 ** 28;
  return inRange ? value : refuse(key, 'a power of two from 65536 to 268435456', value);
};

const checks: Checks<NcclOptions> = {
  minCtas: integer(1, MAX_CTAS),
  maxCtas: integer(1, MAX_CTAS),
  cgaClusterSize: integer(0, 8),
  nvlsCtas: integer(1, MAX_CTAS),
  ctaPolicy: oneOf(CTA_POLICIES),
  collnetEnable: boolean,
  trafficClass: integer(0, 2 ** 31 - 1),
  channelsPerNetPeer: integer(1, MAX_CTAS),
  nvlinkCentricScheduling: boolean,
  netName: label,
  commName: label,
  algorithm: oneOf(['ring', 'tree', 'nvls']),
  protocol: oneOf(['simple', 'll', 'll128']),
  bufferBytes,
  socketInterface: label,
  ibDevices: label,
  p2pLevel: oneOf(['loc', 'nvl', 'pix', 'pxb', 'phb', 'sys']),
  nvls: boolean,
  debug: oneOf(['version', 'warn', 'info', 'trace']),
};

const plain = (value: Value): string => (typeof value === 'boolean' ? String(Number(value)) : String(value));
const upperCase = (value: Value): string => plain(value).toUpperCase();
/** Of all collectives, the layers' own: not every algorithm can do the others. */
const ofAllReduce = (value: Value): string => `allreduce:${plain(value)}`;

/** What NCCL reads from its environment alone. */
const PROCESS_WIDE: VariableTable = {
  algorithm: ['NCCL_ALGO', ofAllReduce],
  protocol: ['NCCL_PROTO', ofAllReduce],
  bufferBytes: ['NCCL_BUFFSIZE', plain],
  socketInterface: ['NCCL_SOCKET_IFNAME', plain],
  ibDevices: ['NCCL_IB_HCA', plain],
  p2pLevel: ['NCCL_P2P_LEVEL', upperCase],
  nvls: ['NCCL_NVLS_ENABLE', plain],
  debug: ['NCCL_DEBUG', upperCase],
};

/** What NCCL lets its environment override. */
const OVERRIDABLE: VariableTable = {
  minCtas: ['NCCL_MIN_CTAS', plain],
  maxCtas: ['NCCL_MAX_CTAS', plain],
  cgaClusterSize: ['NCCL_CGA_CLUSTER_SIZE', plain],
  nvlsCtas: ['NCCL_NVLS_NCHANNELS', plain],
  ctaPolicy: ['NCCL_CTA_POLICY', upperCase],
  collnetEnable: ['NCCL_COLLNET_ENABLE', plain],
  channelsPerNetPeer: ['NCCL_NCHANNELS_PER_NET_PEER', plain],
  nvlinkCentricScheduling: ['NCCL_NVLINK_UTIL_CENTRIC_SCHED_ENABLE', plain],
  netName: ['NCCL_NET', plain],
};

/** Checks {@link NcclOptions}. */
export const ncclOptions: Check<NcclOptions> = (value, key) => {
  const options = readObject(value, key, checks, `${key}.`);
  const { minCtas, maxCtas } = options;
  if (minCtas !== undefined && maxCtas !== undefined && minCtas > maxCtas) {
    refuse(`${key}.minCtas`, `at most maxCtas (${maxCtas})`, minCtas);
  }
  return options;
};

/** What checked options are to NCCL; what is absent is left to it. */
export function resolveNcclOptions(options: NcclOptions): ResolvedNcclOptions {
  const flag = (value: boolean | undefined): number => (value === undefined ? -1 : Number(value));
  return Object.freeze({
    communicator: Object.freeze({
      minCtas: options.minCtas ?? -1,
      maxCtas: options.maxCtas ?? -1,
      cgaClusterSize: options.cgaClusterSize ?? -1,
      nvlsCtas: options.nvlsCtas ?? -1,
      ctaPolicy: options.ctaPolicy === undefined ? -1 : CTA_POLICIES.indexOf(options.ctaPolicy),
      collnetEnable: flag(options.collnetEnable),
      trafficClass: options.trafficClass ?? -1,
      channelsPerNetPeer: options.channelsPerNetPeer ?? -1,
      nvlinkCentricScheduling: flag(options.nvlinkCentricScheduling),
      netName: options.netName ?? '',
      commName: options.commName ?? '',
    }),
    variables: Object.freeze([
      ...variablesOf(options, PROCESS_WIDE, true),
      ...variablesOf(options, OVERRIDABLE, false),
    ]),
  });
}

function variablesOf(options: NcclOptions, table: VariableTable, processWide: boolean): NcclVariable[] {
  return Object.entries(table).flatMap(([key, [name, spell]]) => {
    const value = options[key as keyof NcclOptions];
    if (value === undefined) return [];
    return [{ name, value: spell(value), processWide, given: `parallel.nccl.${key} ${describe(value)}` }];
  });
}

/** The variables that NCCL must have read for the process-wide options to hold. */
export function ncclEnvironment({ variables }: ResolvedNcclOptions): Record<string, string> {
  return Object.fromEntries(variables.filter((v) => v.processWide).map(({ name, value }) => [name, value]));
}

/**
 * Puts process-wide options into this process's environment, where NCCL reads them when it is first used.
 *
 * @returns Takes out again what this call put in.
 * @throws InvalidArgumentError when a variable of the environment says otherwise; then none is set.
 */
export function enterNcclEnvironment(options: ResolvedNcclOptions): () => void {
  for (const { name, value, given } of options.variables) {
    const present = process.env[name];
    if (!present || present === value) continue;
    throw new InvalidArgumentError(
      `${given} needs ${name}=${value} or none in the environment, which has ${name}=${describe(present)}`,
    );
  }
  const added = Object.entries(ncclEnvironment(options)).filter(([name]) => !process.env[name]);
  for (const [name, value] of added) process.env[name] = value;
  return () => added.forEach(([name]) => Reflect.deleteProperty(process.env, name));
}
