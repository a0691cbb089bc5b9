package limits

import (
	"os"
	"path"
	"path/filepath"
	"strings"
)

// cgroups returns the directories of the process's cgroups in which a controller may have limits.
// Their parents limit it as well.
func (s System) cgroups(controller string) (dirs []string) {
	root := s.mount()
	for line := range strings.Lines(s.read("/proc/self/cgroup")) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, at, _ := strings.Cut(rest, ":")
		var mounts []string
		switch {
		case id == "0" && controllers == "":
			mounts = []string{root, root + "/unified"}
		case strings.Contains(","+controllers+",", ","+controller+","):
			mounts = []string{root + "/" + controller, root + "/" + controllers}
		}
		for _, mount := range mounts {
			for at := path.Clean("/" + at); ; at = path.Dir(at) {
				dirs = append(dirs, path.Join(mount, at))
				if at == "/" {
					break
				}
			}
		}
	}
	return dirs
}

// mount returns where the cgroups are. `ip netns exec` mounts another /sys, without them; then the first
// process has them, if this one may look there.
func (s System) mount() string {
	const here, first = "/sys/fs/cgroup", "/proc/1/root/sys/fs/cgroup"
	for _, at := range []string{here, first} {
		if all, _ := os.ReadDir(filepath.Join(s.Root, at)); len(all) > 0 {
			return at
		}
	}
	return here
}
