// Errors as values: the library never throws across its boundary, prints or aborts.
#pragma once

#include <string>
#include <utility>

namespace pyedge {

enum class StatusCode {
  kOk = 0,
  kInvalidModel,     // the bytes are not a model this version can read
  kInvalidArgument,  // a wrong shape, dtype, name or option from the caller
  kUnsupported,      // understood, but not on this CPU or in this build
  kOutOfMemory,
  kIo,
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status invalid_model(std::string message) {
  return {StatusCode::kInvalidModel, std::move(message)};
}
inline Status invalid_argument(std::string message) {
  return {StatusCode::kInvalidArgument, std::move(message)};
}

#define PYEDGE_RETURN_IF_ERROR(expression)                                      \
  do {                                                                          \
    if (::pyedge::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

}  // namespace pyedge
