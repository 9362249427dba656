// SHA-256 against the vectors of FIPS 180-2, with and without the instructions for it.
#include <string>

#include "check.h"
#include "digest/sha256.h"

namespace pyedge {
namespace {

std::string sha256(const std::string& text, size_t piece, const CpuFeatures& features) {
  Sha256 sha(features);
  for (size_t at = 0; at < text.size(); at += piece) {
    const std::string part = text.substr(at, piece);
    sha.update(reinterpret_cast<const uint8_t*>(part.data()), part.size());
  }
  std::string hex;
  for (const uint8_t byte : sha.digest()) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", byte);
    hex += two;
  }
  return hex;
}

void test_sha256(const CpuFeatures& features) {
  const std::string million(1000000, 'a');
  for (const size_t piece : {size_t{1}, size_t{63}, size_t{64}, size_t{65}, million.size()}) {
    CHECK(sha256("", piece, features) ==
          "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256("abc", piece, features) ==
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(sha256(million, piece, features) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}

}  // namespace
}  // namespace pyedge

int main() {
  const pyedge::CpuFeatures& features = pyedge::cpu_features();
  pyedge::test_sha256(features);
  pyedge::test_sha256({features.architecture, features.bits & ~pyedge::kSha256});
  return 0;
}
