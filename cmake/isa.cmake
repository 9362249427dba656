# One table from the suffix of a kernel file to its compile flags: csrc/kernels/<op>/x86_avx2.cc
# is compiled with the flags of x86_avx2. A suffix that is not for this processor is left out.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(PYEDGE_ARCHITECTURE x86)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(PYEDGE_ARCHITECTURE arm)
else()
  set(PYEDGE_ARCHITECTURE other)
endif()

set(PYEDGE_FLAGS_x86_avx2 -mavx2 -mfma)
set(PYEDGE_FLAGS_x86_avxvnni -mavx2 -mfma -mavxvnni)
set(PYEDGE_FLAGS_x86_avx512vnni -mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl
    -mavx512vnni -mprefer-vector-width=512)
set(PYEDGE_FLAGS_x86_amx ${PYEDGE_FLAGS_x86_avx512vnni} -mamx-tile -mamx-int8)
set(PYEDGE_FLAGS_x86_sha -msha -msse4.1)
set(PYEDGE_FLAGS_arm_neon -march=armv8-a)
set(PYEDGE_FLAGS_arm_dotprod -march=armv8.2-a+dotprod)
set(PYEDGE_FLAGS_arm_i8mm -march=armv8.2-a+dotprod+i8mm)
set(PYEDGE_FLAGS_arm_sha2 -march=armv8-a+crypto)

# Tiles fill the register file; GCC's scheduling before register allocation makes it spill them.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  foreach(suffix IN ITEMS arm_neon arm_dotprod arm_i8mm)
    list(APPEND PYEDGE_FLAGS_${suffix} -fno-schedule-insns)
  endforeach()
endif()

function(pyedge_set_isa_flags source)
  get_filename_component(stem ${source} NAME_WE)
  if(DEFINED PYEDGE_FLAGS_${stem})
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${PYEDGE_FLAGS_${stem}}")
  elseif(stem MATCHES "^(x86|arm)_")
    message(FATAL_ERROR "${source}: no compile flags for the suffix ${stem} in cmake/isa.cmake")
  endif()
endfunction()
