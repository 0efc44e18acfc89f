"""The rows of the bench, by Python's multiprocessing. Prints nanoseconds per operation.

Arguments: role, the two CPUs, then the numbers of the role."""

import multiprocessing
import os
import signal
import struct
import sys
import time

context = multiprocessing.get_context("fork")
role = sys.argv[1]
cpus = [int(text) for text in sys.argv[2:4]]
numbers = [int(text) for text in sys.argv[4:]]

MOST = 8
starts = context.RawArray("Q", MOST)
stops = context.RawArray("Q", MOST)
sums = context.RawArray("Q", MOST)


def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def race(jobs, same=False):
    """Runs each job(worker, ready) in a process of its own.

    Returns the nanoseconds from the first start to the last stop.
    """
    barrier = context.Barrier(len(jobs))

    def run(worker, job):
        signal.alarm(60)
        os.sched_setaffinity(0, {cpus[0 if same else worker % 2]})
        job(worker, barrier.wait)

    workers = [context.Process(target=run, args=(worker, job)) for worker, job in enumerate(jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode != 0:
            for other in workers:
                other.kill()
            sys.exit(f"a worker ended with {worker.exitcode}")
    return max(stops[: len(jobs)]) - min(starts[: len(jobs)])


def queue(producers, consumers, size, capacity, warm_up, each):
    messages = context.Queue(capacity)
    filling = b"\7" * max(size - 16, 0)

    def message(stamp):
        word = struct.pack("=Q", stamp)
        return word if size == 8 else word + filling + word

    def produce(worker, ready):
        base = worker << 48
        ready()
        for number in range(warm_up):
            messages.put(message(base | number))
        starts[worker] = now()
        for number in range(warm_up, warm_up + each):
            messages.put(message(base | number))
        messages.close()
        messages.join_thread()
        stops[worker] = now()

    def consume(worker, ready):
        total = 0

        def receive():
            data = messages.get()
            assert len(data) == size and data[:8] == data[-8:]
            return struct.unpack("=Q", data[:8])[0]

        ready()
        for _ in range(warm_up * producers // consumers):
            total += receive()
        starts[worker] = now()
        for _ in range(each * producers // consumers):
            total += receive()
        stops[worker] = now()
        sums[worker] = total

    elapsed = race([produce] * producers + [consume] * consumers)
    numbers = range(warm_up + each)
    expected = sum((producer << 48) + number for producer in range(producers) for number in numbers)
    assert sum(sums) == expected, "messages were lost"
    return elapsed / (each * producers)


def lock(workers, outside, sections):
    guard = {"Lock": context.Lock, "RLock": context.RLock, "Semaphore": lambda: context.Semaphore(4)}[role]()
    tally = context.RawValue("Q", 0)
    warm_up = sections // 10
    turns = 0
    if outside:
        start = now()
        for _ in range(100_000):
            pass
        turns = max(1, outside * 100_000 // (now() - start))

    def compete(worker, ready):
        own = 0
        ready()
        for end in (warm_up, warm_up + sections):
            if end > warm_up:
                starts[worker] = now()
            while True:
                with guard:
                    number = tally.value + 1
                    tally.value = number
                own += 1
                if number >= end:
                    break
                for _ in range(turns):
                    pass
        stops[worker] = now()
        sums[worker] = own

    elapsed = race([compete] * workers)
    assert sum(sums) == tally.value, "two workers had the lock at once"
    return elapsed / sections


def value(additions):
    number = context.Value("Q", 0)
    warm_up = additions // 10

    def add(worker, ready):
        ready()
        for count in (warm_up, additions):
            starts[worker] = now()
            for _ in range(count):
                with number.get_lock():
                    number.value += 1
        stops[worker] = now()

    elapsed = race([add])
    assert number.value == warm_up + additions
    return elapsed / additions


def roundtrip(same, idle, requests):
    there, back = context.Queue(1024), context.Queue(1024)
    warm_up = requests // 10
    times = []

    def message(number):
        return struct.pack("=Q48xQ", number, number)

    def ask(worker, ready):
        ready()
        for number in range(warm_up + requests):
            if idle:
                time.sleep(idle / 1000)
            if number == warm_up:
                starts[worker] = now()
            start = now()
            there.put(message(number))
            assert back.get() == message(number)
            if number >= warm_up:
                times.append(now() - start)
        stops[worker] = now()
        times.sort()
        sums[worker] = times[len(times) // 2]

    def answer(worker, ready):
        ready()
        starts[worker] = now()
        for number in range(warm_up + requests):
            if number == warm_up:
                starts[worker] = now()
            data = there.get()
            assert data == message(number)
            back.put(data)
        stops[worker] = now()

    elapsed = race([ask, answer], bool(same))
    return sums[0] if idle else elapsed / requests


def spawn(processes):
    def nothing():
        pass

    def run(count):
        for _ in range(count):
            process = context.Process(target=nothing)
            process.start()
            process.join()
            assert process.exitcode == 0

    run(processes // 10)
    start = now()
    run(processes)
    return (now() - start) / processes


roles = {"queue": queue, "value": value, "roundtrip": roundtrip, "spawn": spawn}
print(roles.get(role, lock)(*numbers))
