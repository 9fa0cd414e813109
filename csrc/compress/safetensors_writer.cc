#include "compress/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <system_error>

#include "base/error.h"
#include "base/rounding.h"
#include "compress/json_text.h"

namespace heddle {
namespace {

uint64_t ElementBytes(const std::string& dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  return 1;
}

std::vector<size_t> FileOrder(const std::vector<NewTensor>& tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const uint64_t size_a = ElementBytes(tensors[a].dtype);
    const uint64_t size_b = ElementBytes(tensors[b].dtype);
    return size_a != size_b ? size_a > size_b : tensors[a].name < tensors[b].name;
  });
  return order;
}

std::string Header(const std::vector<NewTensor>& tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  uint64_t end = 0;
  for (const size_t i : FileOrder(tensors)) {
    const NewTensor& tensor = tensors[i];
    const uint64_t begin = end;
    end += tensor.SizeBytes();
    header += "," + JsonString(tensor.name) + ":{\"dtype\":\"" + tensor.dtype + "\",\"shape\":[";
    for (size_t d = 0; d < tensor.shape.size(); ++d) header += (d > 0 ? "," : "") + std::to_string(tensor.shape[d]);
    header += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
  }
  header += "}";
  header.resize(static_cast<size_t>(RoundUp(static_cast<int64_t>(header.size()), 8)), ' ');
  return header;
}

void WriteAt(int fd, const std::string& path, uint64_t offset, const void* data, size_t count) {
  const auto* bytes = static_cast<const char*>(data);
  while (count > 0) {
    const ssize_t written = pwrite(fd, bytes, count, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) ThrowOutputError(path, "written", written == 0 ? ENOSPC : errno);
    bytes += written;
    offset += static_cast<uint64_t>(written);
    count -= static_cast<size_t>(written);
  }
}

}  // namespace

void ThrowOutputError(const std::string& path, const std::string& what, int error) {
  throw Error(ErrorCode::kInvalidArgument,
              "output " + path + " cannot be " + what + ": " + std::generic_category().message(error));
}

uint64_t NewTensor::SizeBytes() const {
  uint64_t bytes = ElementBytes(dtype);
  for (const int64_t dim : shape) bytes *= static_cast<uint64_t>(dim);
  return bytes;
}

uint64_t SafetensorsWriter::FileBytes(const std::vector<NewTensor>& tensors) {
  uint64_t bytes = sizeof(uint64_t) + Header(tensors).size();
  for (const NewTensor& tensor : tensors) bytes += tensor.SizeBytes();
  return bytes;
}

SafetensorsWriter::SafetensorsWriter(std::string path, const std::vector<NewTensor>& tensors)
    : path_(std::move(path)), places_(tensors.size()) {
  std::string header = Header(tensors);
  const uint64_t length = header.size();
  header.insert(0, reinterpret_cast<const char*>(&length), sizeof(length));
  uint64_t end = header.size();
  for (const size_t i : FileOrder(tensors)) {
    places_[i] = {end, tensors[i].SizeBytes()};
    end += places_[i].size;
  }
  file_.fd = open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file_.fd < 0) ThrowOutputError(path_, "created", errno);
  const int error = posix_fallocate(file_.fd, 0, static_cast<off_t>(end));
  if (error != 0) ThrowOutputError(path_, "written", error);
  WriteAt(file_.fd, path_, 0, header.data(), header.size());
}

SafetensorsWriter::Descriptor::~Descriptor() {
  if (fd >= 0) close(fd);
}

void SafetensorsWriter::Write(size_t tensor, uint64_t offset, const void* data, size_t count) {
  const Place& place = places_[tensor];
  HEDDLE_CHECK(offset <= place.size && count <= place.size - offset, path_);
  WriteAt(file_.fd, path_, place.begin + offset, data, count);
}

void SafetensorsWriter::Finish() {
  if (fsync(file_.fd) != 0) ThrowOutputError(path_, "written", errno);
}

}  // namespace heddle
