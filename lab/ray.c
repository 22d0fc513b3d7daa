/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A small ray tracer, by itself or as two nodes with a TCP connection, to have a program that
 * computes and communicates.
 *
 *      ray alone PASSES [PICTURE.ppm]
 *      ray node FD 0|1 PASSES             FD: connected to the other one, inherited
 *
 * Theory of operation. The picture is refined pass by pass: each looks through every pixel once, at a
 * place of its own, to a place of its own on the lamp. So edges and shadows get soft. In the scene
 * stands a screen, on which the picture so far is to be seen: who renders a part needs all of it.
 *
 *      node 0   render its tiles ─┐ ┌─ add all tiles to the picture, next pass
 *                                 swap
 *      node 1   render its tiles ─┘ └─ the same
 *
 * The tiles are divided like the squares of a chessboard, since what they cost depends on where they
 * are, and lie in memory by node, so that what one sends is in one piece: half of the picture in
 * floats, 1.8 MB, both ways at once.
 *
 * Prints a checksum of the picture and the seconds that it took. The checksum does not depend on how
 * many nodes there were: no function is called whose last bit is up to the C library, and no
 * multiplication fused with an addition (meson.build).
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
	WIDTH = 640,
	HEIGHT = 480,
	TILE = 32,
	ACROSS = WIDTH / TILE,
	TILES = ACROSS * (HEIGHT / TILE),
	PIXELS = WIDTH * HEIGHT,
	BALLS = 15,
	BOUNCES = 4,
};

struct vec {
	float x, y, z;
};

struct ball {
	struct vec centre, colour;
	float radius, mirror;
};

/* What a ray has met. */
struct hit {
	float distance;
	struct vec at, normal, colour;
	float mirror;
	bool shines;
};

static const struct vec EYE = { 0, 1.5f, -6.5f }, LAMP = { -4, 7, -4 };
static const float LAMP_SIZE = 1.2f, FAR = 1e9f, NEAR = 1e-3f, FAINT = 0.02f;
/* The screen: in the plane z = SCREEN_Z, the picture with a frame around it. */
static const float SCREEN_Z = 4, SCREEN_WIDE = 5.6f, SCREEN_HIGH = 4.2f, SCREEN_FOOT = 0.3f;
static const float FRAME = 0.02f;

static struct ball balls[BALLS];
static unsigned slot_of_tile[TILES];             /* where a tile lies: first those of node 0 */
static struct vec picture[PIXELS], pass[PIXELS]; /* sum of all passes; this one */
static unsigned passes_done;

static struct vec vec(float x, float y, float z)
{
	return (struct vec){ x, y, z };
}

static struct vec add(struct vec a, struct vec b)
{
	return vec(a.x + b.x, a.y + b.y, a.z + b.z);
}

static struct vec sub(struct vec a, struct vec b)
{
	return vec(a.x - b.x, a.y - b.y, a.z - b.z);
}

static struct vec scale(struct vec a, float by)
{
	return vec(a.x * by, a.y * by, a.z * by);
}

static float dot(struct vec a, struct vec b)
{
	return a.x * b.x + a.y * b.y + a.z * b.z;
}

static struct vec unit(struct vec a)
{
	return scale(a, 1 / sqrtf(dot(a, a)));
}

/* 0 to 1, from a state that it moves on. */
static float chance(uint32_t *state)
{
	uint32_t word;

	*state = *state * 747796405 + 2891336453;
	word = ((*state >> ((*state >> 28) + 4)) ^ *state) * 277803737;
	return (float)((word >> 22 ^ word) >> 8) / (1 << 24);
}

/* Three large balls, and a ring of small ones around them. */
static void make_scene(void)
{
	struct vec spoke = vec(2.6f, 0.3f, 0);

	balls[0] = (struct ball){ vec(0, 1, 0.4f), vec(0.9f, 0.9f, 0.95f), 1, 0.85f };
	balls[1] = (struct ball){ vec(-1.5f, 0.7f, -0.7f), vec(0.85f, 0.15f, 0.1f), 0.7f, 0.15f };
	balls[2] = (struct ball){ vec(1.4f, 0.6f, -0.9f), vec(0.95f, 0.7f, 0.2f), 0.6f, 0.35f };
	for (unsigned i = 3; i < BALLS; i++) {
		float hue = (float)(i - 3) / (BALLS - 3);

		balls[i] = (struct ball){
			spoke, vec(0.25f + 0.7f * hue, 0.8f - 0.5f * hue, 0.9f - 0.6f * hue * hue),
			0.3f, 0.1f
		};
		spoke = vec(0.8660254f * spoke.x - 0.5f * spoke.z, 0.3f,
			    0.5f * spoke.x + 0.8660254f * spoke.z);
	}
	for (unsigned tile = 0, next[2] = { 0, TILES / 2 }; tile < TILES; tile++)
		slot_of_tile[tile] = next[(tile / ACROSS + tile % ACROSS) % 2]++;
}

/* Where a pixel lies in picture and pass. */
static unsigned place(unsigned x, unsigned y)
{
	unsigned tile = y / TILE * ACROSS + x / TILE;

	return slot_of_tile[tile] * TILE * TILE + y % TILE * TILE + x % TILE;
}

/* What the screen shows at (u, v), each from 0 to 1. */
static struct vec on_screen(float u, float v)
{
	float inner = 1 - 2 * FRAME;
	int x = (int)((u - FRAME) / inner * WIDTH), y = (int)((v - FRAME) / inner * HEIGHT);

	if (u < FRAME || v < FRAME || x >= WIDTH || y >= HEIGHT)
		return vec(0.08f, 0.07f, 0.06f);
	return scale(picture[place(x, y)], 0.9f / (passes_done ? passes_done : 1));
}

static void meet_ball(const struct ball *ball, struct vec from, struct vec to, struct hit *hit)
{
	struct vec away = sub(from, ball->centre);
	float half = dot(away, to),
	      under = half * half - dot(away, away) + ball->radius * ball->radius, distance;

	if (under <= 0)
		return;
	distance = -half - sqrtf(under);
	if (distance < NEAR || distance >= hit->distance)
		return;
	hit->distance = distance;
	hit->at = add(from, scale(to, distance));
	hit->normal = scale(sub(hit->at, ball->centre), 1 / ball->radius);
	hit->colour = ball->colour;
	hit->mirror = ball->mirror;
	hit->shines = false;
}

static void meet_floor(struct vec from, struct vec to, struct hit *hit)
{
	float distance = -from.y / to.y;
	bool dark;

	if (to.y >= 0 || distance < NEAR || distance >= hit->distance)
		return;
	hit->distance = distance;
	hit->at = add(from, scale(to, distance));
	hit->normal = vec(0, 1, 0);
	dark = ((int)(hit->at.x + 1000) + (int)(hit->at.z + 1000)) & 1;
	hit->colour = dark ? vec(0.12f, 0.14f, 0.18f) : vec(0.75f, 0.74f, 0.7f);
	hit->mirror = 0.12f;
	hit->shines = false;
}

static void meet_screen(struct vec from, struct vec to, struct hit *hit)
{
	float distance = (SCREEN_Z - from.z) / to.z, u, v;
	struct vec at = add(from, scale(to, distance));

	if (to.z <= 0 || distance < NEAR || distance >= hit->distance)
		return;
	u = at.x / SCREEN_WIDE + 0.5f;
	v = 1 - (at.y - SCREEN_FOOT) / SCREEN_HIGH;
	if (u < 0 || u > 1 || v < 0 || v > 1)
		return;
	*hit = (struct hit){ distance, at, vec(0, 0, -1), on_screen(u, v), 0.04f, true };
}

static bool meet(struct vec from, struct vec to, struct hit *hit)
{
	for (unsigned i = 0; i < BALLS; i++)
		meet_ball(&balls[i], from, to, hit);
	meet_floor(from, to, hit);
	meet_screen(from, to, hit);
	return hit->distance < FAR;
}

/* Whether something stands between here and the lamp. */
static bool in_shadow(struct vec from, struct vec to, float distance)
{
	struct hit hit = { .distance = distance };

	for (unsigned i = 0; i < BALLS && hit.distance == distance; i++)
		meet_ball(&balls[i], from, to, &hit);
	return hit.distance < distance;
}

static struct vec sky(struct vec to)
{
	float high = to.y > 0 ? to.y : 0, haze = (1 - high) * (1 - high);

	return vec(0.25f + 0.6f * haze, 0.4f + 0.4f * haze, 0.75f + 0.1f * haze);
}

/* Light that the hit sends on, but for what it mirrors. */
static struct vec lit(const struct hit *hit, struct vec lamp)
{
	struct vec to_lamp = sub(lamp, hit->at);
	float square = dot(to_lamp, to_lamp), distance = sqrtf(square), slant, light;

	if (hit->shines)
		return hit->colour;
	to_lamp = scale(to_lamp, 1 / distance);
	slant = dot(to_lamp, hit->normal);
	light = 0.18f + 0.1f * hit->normal.y;
	if (slant > 0 && !in_shadow(hit->at, to_lamp, distance))
		light += slant * 65 / square;
	return scale(hit->colour, light);
}

static struct vec trace(struct vec from, struct vec to, struct vec lamp)
{
	struct vec light = { 0 };
	float weight = 1;

	for (unsigned bounce = 0; bounce < BOUNCES && weight > FAINT; bounce++) {
		struct hit hit = { .distance = FAR };
		float facing, grazing, mirrored;

		if (!meet(from, to, &hit))
			return add(light, scale(sky(to), weight));
		facing = -dot(to, hit.normal);
		grazing = 1 - facing;
		mirrored = hit.mirror +
			   (1 - hit.mirror) * grazing * grazing * grazing * grazing * grazing;
		light = add(light, scale(lit(&hit, lamp), weight * (1 - mirrored)));
		weight *= mirrored;
		from = hit.at;
		to = add(to, scale(hit.normal, 2 * facing));
	}
	return light;
}

static struct vec look_through(unsigned x, unsigned y)
{
	uint32_t state = (y * WIDTH + x) * 2654435761U + passes_done * 40503;
	float across = (float)x + chance(&state) - WIDTH / 2;
	float up = HEIGHT / 2 - (float)y - chance(&state);
	struct vec lamp = LAMP;

	lamp.x += LAMP_SIZE * (chance(&state) - 0.5f);
	lamp.z += LAMP_SIZE * (chance(&state) - 0.5f);
	return trace(EYE, unit(vec(across / WIDTH, up / WIDTH - 0.03f, 0.85f)), lamp);
}

/* All tiles, or those of one node. */
static void render(unsigned first_slot, unsigned slots)
{
	for (unsigned y = 0; y < HEIGHT; y++) {
		for (unsigned x = 0; x < WIDTH; x++) {
			unsigned at = place(x, y);

			if (at / (TILE * TILE) - first_slot < slots)
				pass[at] = look_through(x, y);
		}
	}
}

static void add_pass(void)
{
	for (unsigned i = 0; i < PIXELS; i++)
		picture[i] = add(picture[i], pass[i]);
	passes_done++;
}

/* Send and receive at the same time, so that neither waits for the other to read. */
static bool swap(int fd, const void *out, void *in, size_t len)
{
	size_t sent = 0, got = 0;

	while (sent < len || got < len) {
		struct pollfd ready = { fd, (sent < len ? POLLOUT : 0) | (got < len ? POLLIN : 0),
					0 };
		ssize_t done;

		if (poll(&ready, 1, -1) < 0)
			return false;
		if (sent < len) {
			done = send(fd, (const char *)out + sent, len - sent,
				    MSG_DONTWAIT | MSG_NOSIGNAL);
			if (done < 0 && errno != EAGAIN)
				return false;
			sent += done > 0 ? done : 0;
		}
		if (got < len) {
			done = recv(fd, (char *)in + got, len - got, MSG_DONTWAIT);
			if (done == 0 || (done < 0 && errno != EAGAIN))
				return false;
			got += done > 0 ? done : 0;
		}
	}
	return true;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* FNV-1a over the picture, as it lies in memory. */
static uint64_t checksum(void)
{
	const uint8_t *bytes = (const uint8_t *)picture;
	uint64_t sum = 14695981039346656037U;

	for (size_t i = 0; i < sizeof(picture); i++)
		sum = (sum ^ bytes[i]) * 1099511628211U;
	return sum;
}

static bool run_node(int fd, unsigned which, unsigned passes)
{
	unsigned half = PIXELS / 2;
	const struct vec *mine = pass + which * half;
	struct vec *theirs = pass + (1 - which) * half;

	for (unsigned i = 0; i < passes; i++) {
		render(which * (TILES / 2), TILES / 2);
		if (!swap(fd, mine, theirs, half * sizeof(*mine)))
			return false;
		add_pass();
	}
	return true;
}

static bool run_alone(unsigned passes)
{
	for (unsigned i = 0; i < passes; i++) {
		render(0, TILES);
		add_pass();
	}
	return true;
}

static uint8_t as_byte(float light)
{
	return light < 1 ? (uint8_t)(255 * sqrtf(light) + 0.5f) : 255;
}

static bool save(const char *path)
{
	FILE *file = fopen(path, "wb");

	if (!file)
		return false;
	fprintf(file, "P6\n%d %d\n255\n", WIDTH, HEIGHT);
	for (unsigned y = 0; y < HEIGHT; y++) {
		for (unsigned x = 0; x < WIDTH; x++) {
			struct vec light = scale(picture[place(x, y)], 1.0f / passes_done);

			fputc(as_byte(light.x), file);
			fputc(as_byte(light.y), file);
			fputc(as_byte(light.z), file);
		}
	}
	return fclose(file) == 0;
}

int main(int argc, char **argv)
{
	bool alone = argc >= 3 && argc <= 4 && strcmp(argv[1], "alone") == 0;
	bool node = argc == 5 && strcmp(argv[1], "node") == 0;
	char hello = 0;
	double start;

	if (!alone && !node) {
		fprintf(stderr, "usage: ray alone PASSES [PICTURE.ppm]\n"
				"       ray node FD 0|1 PASSES\n");
		return EXIT_FAILURE;
	}
	make_scene();
	if (node && !swap(atoi(argv[2]), &hello, &hello, 1)) /* both are there */
		return EXIT_FAILURE;
	start = now();
	if (alone ? !run_alone(atoi(argv[2]))
		  : !run_node(atoi(argv[2]), atoi(argv[3]) == 1, atoi(argv[4])))
		return EXIT_FAILURE;
	printf("%016llx %.6f\n", (unsigned long long)checksum(), now() - start);
	if (argc == 4 && !save(argv[3]))
		return EXIT_FAILURE;
	return EXIT_SUCCESS;
}
