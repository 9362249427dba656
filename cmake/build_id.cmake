# Writes OUTPUT, a C++ file with the digest of SOURCES (paths from SOURCE_DIR) and of BUILD, a
# string that says how they are compiled: cmake -DOUTPUT=... -P build_id.cmake
set(text "${BUILD}")
foreach(source IN LISTS SOURCES)
  file(SHA256 ${SOURCE_DIR}/${source} digest)
  string(APPEND text "\n${source} ${digest}")
endforeach()
string(SHA256 id "${text}")
file(WRITE ${OUTPUT} "#include \"base/build_id.h\"\n
const char* pyedge::build_id() { return \"${id}\"; }\n")
