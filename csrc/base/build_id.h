// Which build of the library this is: a digest of its sources, compiler and target.
#pragma once

namespace pyedge {

const char* build_id();

}  // namespace pyedge
