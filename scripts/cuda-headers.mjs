// Downloads the headers of cuBLASLt and NCCL to build/cuda/headers, for CUDA toolkits that come without them: those
// folders of their Python wheels, of which nothing else is kept. A tool for development, never run at install.
//
//   node scripts/cuda-headers.mjs
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { announce, hasProgram, main, root, run } from './common.mjs';

const WHEELS = ['nvidia-cublas==13.1.1.3', 'nvidia-nccl-cu13==2.30.7'];
const HEADERS = path.join(root, 'build/cuda/headers');

// Arguments: a wheel and a folder, into which what lies below the wheel's include folder goes.
const UNPACK = `
import pathlib, sys, zipfile
wheel, folder = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        path = pathlib.PurePosixPath(name)
        if "include" not in path.parts[:-1] or ".." in path.parts or path.suffix == ".py" or name.endswith("/"):
            continue
        target = pathlib.Path(folder).joinpath(*path.parts[path.parts.index("include") + 1:])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(archive.read(name))
`;

await main(async () => {
  if (!(await hasProgram('python3'))) throw new Error('python3 was not found, whose pip downloads the headers');
  const folder = mkdtempSync(path.join(os.tmpdir(), 'heddle-cuda-headers-'));
  try {
    await announce('downloading headers of cuBLASLt and NCCL', async () => {
      const pip = ['-m', 'pip', 'download', '--quiet', '--retries', '0', '--no-deps', '--only-binary', ':all:'];
      for (const wheel of WHEELS) await run('python3', [...pip, '--dest', folder, wheel], { quiet: true });
      for (const wheel of readdirSync(folder)) {
        await run('python3', ['-c', UNPACK, path.join(folder, wheel), HEADERS], { quiet: true });
      }
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
