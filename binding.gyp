# The native module. Sources and flags are listed by scripts/native-config.mjs; the core is compiled once per
# instruction set where that matters, and chosen at run time.
{
  'target_defaults': {
    'include_dirs': ['csrc', 'cuda/include'],
    # Node's own flags, of which ours take the place.
    'cflags!': ['-Wno-unused-parameter'],
    'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++17', '-std=gnu++20'],
    'xcode_settings': {
      'CLANG_CXX_LANGUAGE_STANDARD': 'c++20',
      'CLANG_CXX_LIBRARY': 'libc++',
      'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
      'GCC_ENABLE_CPP_RTTI': 'YES',
      'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES',
      'MACOSX_DEPLOYMENT_TARGET': '11.0',
    },
  },
  'targets': [
    {
      'target_name': 'heddle_core',
      'type': 'static_library',
      'sources': ['<!@(node scripts/native-config.mjs sources core)'],
      'variables': {'flags': ['<!@(node scripts/native-config.mjs flags core <(target_arch))']},
      'cflags_cc': ['<@(flags)'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(flags)']},
    },
    {
      'target_name': 'heddle_kernels_scalar',
      'type': 'static_library',
      'sources': ['<!@(node scripts/native-config.mjs sources scalar)'],
      'variables': {'flags': ['<!@(node scripts/native-config.mjs flags scalar <(target_arch))']},
      'cflags_cc': ['<@(flags)'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(flags)']},
    },
    {
      'target_name': 'heddle_kernels_avx2',
      'type': 'static_library',
      'sources': ['<!@(node scripts/native-config.mjs sources avx2)'],
      'variables': {'flags': ['<!@(node scripts/native-config.mjs flags avx2 <(target_arch))']},
      'cflags_cc': ['<@(flags)'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(flags)']},
    },
    {
      'target_name': 'heddle_kernels_avx512',
      'type': 'static_library',
      'sources': ['<!@(node scripts/native-config.mjs sources avx512)'],
      'variables': {'flags': ['<!@(node scripts/native-config.mjs flags avx512 <(target_arch))']},
      'cflags_cc': ['<@(flags)'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(flags)']},
    },
    {
      'target_name': 'heddle_kernels_avx512_vnni',
      'type': 'static_library',
      'sources': ['<!@(node scripts/native-config.mjs sources avx512_vnni)'],
      'variables': {'flags': ['<!@(node scripts/native-config.mjs flags avx512_vnni <(target_arch))']},
      'cflags_cc': ['<@(flags)'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(flags)']},
    },
    {
      'target_name': 'heddle_kernels_avx512_bf16',
      'type': 'static_library',
      'sources': ['<!@(node scripts/native-config.mjs sources avx512_bf16)'],
      'variables': {'flags': ['<!@(node scripts/native-config.mjs flags avx512_bf16 <(target_arch))']},
      'cflags_cc': ['<@(flags)'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(flags)']},
    },
    {
      'target_name': 'heddle_kernels_amx',
      'type': 'static_library',
      'sources': ['<!@(node scripts/native-config.mjs sources amx)'],
      'variables': {'flags': ['<!@(node scripts/native-config.mjs flags amx <(target_arch))']},
      'cflags_cc': ['<@(flags)'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(flags)']},
    },
    {
      'target_name': 'heddle',
      'sources': ['<!@(node scripts/native-config.mjs sources napi)'],
      'variables': {'flags': ['<!@(node scripts/native-config.mjs flags napi <(target_arch))']},
      # Headers that are also in -isystem are system headers, whose warnings are not ours.
      'cflags_cc': ['<@(flags)', '-isystem', '<(node_root_dir)/include/node'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(flags)']},
      # The order is the linker's: where an inline function of the standard library exists in several of them, the
      # copy compiled for any machine must be the first.
      'dependencies': ['heddle_core', 'heddle_kernels_scalar', 'heddle_kernels_avx2', 'heddle_kernels_avx512',
                       'heddle_kernels_avx512_vnni', 'heddle_kernels_avx512_bf16', 'heddle_kernels_amx'],
      'conditions': [['OS=="linux"', {'ldflags': ['-pthread'], 'libraries': ['-ldl']}]],
    },
  ],
}
