// Names of registers for instructions that take as many as a product of a warpgroup: no template can write them down.
#pragma once

// The four of a tile, d[j], and those of tiles from j on, each by this constraint.
#define HEDDLE_D1(constraint, j) constraint(d[j][0]), constraint(d[j][1]), constraint(d[j][2]), constraint(d[j][3])
#define HEDDLE_D2(constraint, j) HEDDLE_D1(constraint, j), HEDDLE_D1(constraint, (j) + 1)
#define HEDDLE_D4(constraint, j) HEDDLE_D2(constraint, j), HEDDLE_D2(constraint, (j) + 2)
#define HEDDLE_D8(constraint, j) HEDDLE_D4(constraint, j), HEDDLE_D4(constraint, (j) + 4)
#define HEDDLE_D16(constraint, j) HEDDLE_D8(constraint, j), HEDDLE_D8(constraint, (j) + 8)

// The first so many operands.
#define HEDDLE_R8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define HEDDLE_R16 HEDDLE_R8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define HEDDLE_R24 HEDDLE_R16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define HEDDLE_R32 HEDDLE_R24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define HEDDLE_R40 HEDDLE_R32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define HEDDLE_R48 HEDDLE_R40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define HEDDLE_R56 HEDDLE_R48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define HEDDLE_R64 HEDDLE_R56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define HEDDLE_R80 HEDDLE_R64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define HEDDLE_R96 HEDDLE_R80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define HEDDLE_R112 \
  HEDDLE_R96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define HEDDLE_R128 \
  HEDDLE_R112 ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
