# A compiler of tomorrow may warn where none does today: packages that build on a user's machine turn this off.
option(KVASIR_WARNINGS_AS_ERRORS "Compile with -Werror" ON)

# One interface target carries what every native target here is compiled with.
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
find_package(Threads REQUIRED)

add_library(kvasir_options INTERFACE)
target_compile_features(kvasir_options INTERFACE cxx_std_20)
get_filename_component(KVASIR_NATIVE_DIRECTORY ${CMAKE_CURRENT_LIST_DIR}/.. ABSOLUTE)
target_include_directories(kvasir_options INTERFACE ${KVASIR_NATIVE_DIRECTORY})
target_link_libraries(kvasir_options INTERFACE Threads::Threads)
# -ffp-contract=off: only explicit fma may fuse, otherwise output bits depend on the compiler's choices.
# Host compilers only: nvcc takes none of these.
target_compile_options(kvasir_options INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:
  -Wall -Wextra $<$<BOOL:${KVASIR_WARNINGS_AS_ERRORS}>:-Werror> -ffp-contract=off -fno-math-errno -fvisibility=hidden>
  $<$<COMPILE_LANGUAGE:CXX>:-fvisibility-inlines-hidden -Wshadow -Wno-psabi>)

# GCC 12 reports overlapping copies inside std::string that cannot happen (its bug 105651), and its own AVX intrinsics'
# undefined registers as uninitialized (its bug 105593).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(kvasir_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict -Wno-uninitialized -Wno-maybe-uninitialized>)
endif()

if(KVASIR_SANITIZE)
  target_compile_options(kvasir_options INTERFACE
    -fsanitize=${KVASIR_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  target_link_options(kvasir_options INTERFACE -fsanitize=${KVASIR_SANITIZE})
endif()
