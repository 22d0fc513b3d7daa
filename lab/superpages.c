// SPDX-License-Identifier: BSD-3-Clause
/*
 * How many superpages stay whole, grouped and not (M16): the simulation of superpages.h for the lab.
 *
 * Usage: superpages RUNS. Prints a line of JSON for each workload, policy and run, each run another
 * sequence of allocations.
 */
#include "superpages.h"

#include <err.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	unsigned runs = argc == 2 ? atoi(argv[1]) : 0;

	if (runs == 0)
		errx(2, "usage: superpages RUNS");
	for (unsigned i = 0; i < sizeof(workloads) / sizeof(*workloads) * runs; i++) {
		const struct workload *workload = &workloads[i / runs];

		for (enum policy policy = RANDOM; policy <= GROUPED; policy++) {
			struct outcome outcome;

			run(workload, policy, i % runs);
			outcome = judge();
			printf("{\"workload\": \"%s\", \"policy\": \"%s\", \"used\": %u, \"whole\": %u, "
			       "\"entries\": %u}\n",
			       workload->name, policies[policy], outcome.used, outcome.whole,
			       outcome.entries);
		}
	}
	return 0;
}
