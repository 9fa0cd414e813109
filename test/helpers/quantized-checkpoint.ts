/** Quantised and sparse checkpoints, made of a dense one: small stand-ins for what other tools write. */
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { readTensors, type StoredTensor, type Tensors, writeTensors } from './safetensors';

// Looking a global up takes long in a test.
const { abs, max, min, round } = Math;

/** How layer matrices are stored; the embedding, the head and the norms stay as they are. */
export const storedForms = [
  'llm-int8', // bitsandbytes
  'int8', // compressed-tensors: weight-only, int-quantized
  'packed-int8', // the same, pack-quantized
  'w8a8',
  '2:4', // sparse-24-bitmask
  '2:4 w8a8',
] as const;
export type StoredForm = (typeof storedForms)[number];

/**
 * Writes the bfloat16 checkpoint `source` to the new folder `target` in another form. 2:4 keeps the two largest of each
 * four columns, which changes nothing where only two differ from zero.
 */
export function writeQuantizedCheckpoint(source: string, target: string, form: StoredForm): void {
  mkdirSync(target, { recursive: true });
  for (const file of ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json']) {
    if (existsSync(path.join(source, file))) cpSync(path.join(source, file), path.join(target, file));
  }
  const config = JSON.parse(readFileSync(path.join(source, 'config.json'), 'utf8')) as Record<string, unknown>;
  config['quantization_config'] = quantizationConfig(form);
  writeFileSync(path.join(target, 'config.json'), JSON.stringify(config));

  const tensors: Tensors = new Map();
  for (const [name, tensor] of readTensors(source)) {
    if (tensor.shape.length === 2 && name.startsWith('model.layers.')) {
      const module = name.slice(0, -'.weight'.length);
      for (const [suffix, part] of Object.entries(storeMatrix(toMatrix(tensor), form))) {
        tensors.set(`${module}.${suffix}`, part);
      }
    } else {
      tensors.set(name, tensor);
    }
  }
  writeTensors(target, tensors);
}

function quantizationConfig(form: StoredForm): object {
  if (form === 'llm-int8') {
    return {
      quant_method: 'bitsandbytes',
      load_in_8bit: true,
      llm_int8_threshold: 6.0,
      llm_int8_skip_modules: ['lm_head'],
    };
  }
  const int8 = { num_bits: 8, type: 'int', symmetric: true, group_size: null };
  const activations = { ...int8, strategy: 'token', dynamic: true };
  return {
    quant_method: 'compressed-tensors',
    ...(form !== '2:4' && {
      format: form === 'packed-int8' ? 'pack-quantized' : 'int-quantized',
      quantization_status: 'compressed',
      ignore: ['lm_head'],
      kv_cache_scheme: null,
      config_groups: {
        group_0: {
          targets: ['Linear'],
          weights: { ...int8, strategy: 'channel', dynamic: false },
          input_activations: form.endsWith('w8a8') ? activations : null,
          output_activations: null,
        },
      },
    }),
    ...(form.startsWith('2:4') && {
      sparsity_config: {
        format: 'sparse-24-bitmask',
        sparsity_structure: '2:4',
        global_sparsity: 0.5,
        targets: ['Linear'],
        ignore: ['lm_head'],
      },
    }),
  };
}

/** A matrix of numbers, or of the elements that stand for them. */
interface Matrix {
  rows: number;
  columns: number;
  values: Float32Array | Int8Array;
}

function storeMatrix(dense: Matrix, form: StoredForm): Record<string, StoredTensor> {
  switch (form) {
    case 'llm-int8': {
      const { elements, largest } = quantize(dense, (row) => row / 127);
      return {
        weight: int8Tensor(elements),
        SCB: { dtype: 'F32', shape: [dense.rows], data: Buffer.from(largest.buffer) },
        weight_format: { dtype: 'U8', shape: [], data: Buffer.from([0]) },
      };
    }
    case 'int8':
    case 'w8a8': {
      const { elements, scales } = quantize(dense, bfloat16Scale);
      return { weight: int8Tensor(elements), weight_scale: scaleTensor(scales) };
    }
    case 'packed-int8': {
      const { elements, scales } = quantize(dense, bfloat16Scale);
      return {
        weight_packed: packedTensor(elements),
        weight_scale: scaleTensor(scales),
        weight_shape: int64Tensor([2], [dense.rows, dense.columns]),
      };
    }
    case '2:4':
      return sparseTensors(dense, bfloat16Tensor);
    case '2:4 w8a8': {
      const { elements, scales } = quantize(dense, bfloat16Scale);
      return { ...sparseTensors(elements, int8Tensor), weight_scale: scaleTensor(scales) };
    }
  }
}

/** Each row by a scale of its own, which follows from its largest value. */
function quantize({ rows, columns, values }: Matrix, scaleOf: (largest: number) => number) {
  const elements = new Int8Array(values.length);
  const scales = new Float32Array(rows);
  const largest = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const first = row * columns;
    for (let i = first; i < first + columns; i++) largest[row] = max(largest[row]!, abs(values[i]!));
    const scale = scaleOf(largest[row]!);
    for (let i = first; i < first + columns; i++) elements[i] = max(-127, min(127, round(values[i]! / scale)));
    scales[row] = scale;
  }
  return { elements: { rows, columns, values: elements }, scales, largest };
}

const bfloat16Scale = (largest: number): number => fromBfloat16(toBfloat16(Float32Array.of(largest / 127)))[0]!;

function sparseTensors(matrix: Matrix, toTensor: (kept: Matrix) => StoredTensor): Record<string, StoredTensor> {
  const { rows, columns, values } = matrix;
  const kept = values.slice(0, values.length / 2);
  const maskColumns = Math.ceil(columns / 8);
  const mask = Buffer.alloc(rows * maskColumns);
  let next = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column += 4) {
      const first = row * columns + column;
      for (let i = 0; i < 4; i++) {
        let larger = 0; // of the others; the first of equals counts as larger
        for (let j = 0; j < 4; j++) {
          const difference = abs(values[first + j]!) - abs(values[first + i]!);
          if (difference > 0 || (difference === 0 && j < i)) larger++;
        }
        if (larger >= 2) continue;
        kept[next++] = values[first + i]!;
        mask[row * maskColumns + (column >> 3)]! |= 1 << ((column + i) % 8);
      }
    }
  }
  return {
    compressed: toTensor({ rows, columns: columns / 2, values: kept }),
    bitmask: { dtype: 'U8', shape: [rows, maskColumns], data: mask },
    shape: int64Tensor([2, 1], [rows, columns]),
  };
}

function packedTensor({ rows, columns, values }: Matrix): StoredTensor {
  const words = Math.ceil(columns / 4);
  const data = Buffer.alloc(rows * words * 4);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) data[row * words * 4 + i] = values[row * columns + i]! + 128;
  }
  return { dtype: 'I32', shape: [rows, words], data };
}

const int8Tensor = ({ rows, columns, values }: Matrix): StoredTensor => ({
  dtype: 'I8',
  shape: [rows, columns],
  data: Buffer.from(new Int8Array(values).buffer),
});

const bfloat16Tensor = ({ rows, columns, values }: Matrix): StoredTensor => ({
  dtype: 'BF16',
  shape: [rows, columns],
  data: Buffer.from(toBfloat16(new Float32Array(values)).buffer),
});

const scaleTensor = (scales: Float32Array): StoredTensor =>
  bfloat16Tensor({ rows: scales.length, columns: 1, values: scales });

const int64Tensor = (shape: number[], values: number[]): StoredTensor => ({
  dtype: 'I64',
  shape,
  data: Buffer.from(BigInt64Array.from(values, BigInt).buffer),
});

function toMatrix({ dtype, shape, data }: StoredTensor): Matrix {
  if (dtype !== 'BF16') throw new Error(`the dense checkpoint must be BF16, found ${dtype}`);
  const halves = new Uint16Array(data.length / 2);
  Buffer.from(halves.buffer).set(data);
  return { rows: shape[0]!, columns: shape[1]!, values: fromBfloat16(halves) };
}

function fromBfloat16(halves: Uint16Array): Float32Array {
  const words = new Uint32Array(halves.length);
  for (let i = 0; i < words.length; i++) words[i] = halves[i]! << 16;
  return new Float32Array(words.buffer);
}

/** To the nearest, and to even between two. */
function toBfloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(words.length);
  for (let i = 0; i < words.length; i++) halves[i] = (words[i]! + 0x7fff + ((words[i]! >>> 16) & 1)) >>> 16;
  return halves;
}
