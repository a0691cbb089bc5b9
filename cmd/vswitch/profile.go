//go:build profile

package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"time"
)

// A switch that is built with the tag profile writes where its processors spend their time to
// the directory that $VSWITCH_PROFILE names: a file for each half second, so that they are there
// however it ends. `make profile` makes busy.pgo of them.
func init() {
	if dir := os.Getenv("VSWITCH_PROFILE"); dir != "" && slices.Contains(os.Args[1:], "run") {
		go profile(dir)
	}
}

func profile(dir string) {
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d.%d.pprof", os.Getpid(), i)))
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			log.Fatal(err)
		}
		time.Sleep(time.Second / 2)
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			log.Fatal(err)
		}
	}
}
