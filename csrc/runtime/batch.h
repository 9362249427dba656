// Batches whose images have nothing to do with each other may be run in pieces.
#pragma once

#include <cstddef>
#include <vector>

#include "graph/graph.h"

namespace pyedge {

// Whether the first axis of every input is a batch of this one size, and each image goes through
// the network by itself.
bool images_are_independent(const Graph& graph, const std::vector<Shape>& inputs);

// How many equal pieces to cut a batch into, so that each thread has one and they are as large as
// can be; 1 where there are not enough images.
size_t batch_pieces(size_t batch, size_t threads);

// The input shapes of one of the pieces.
std::vector<Shape> piece_shapes(std::vector<Shape> inputs, size_t pieces);

}  // namespace pyedge
