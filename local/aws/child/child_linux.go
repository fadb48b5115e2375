package child

import (
	"runtime"
	"syscall"
)

func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func launch(c <-chan func()) {
	runtime.LockOSThread() // never unlocked: this thread lives as long as the process
	for f := range c {
		f()
	}
}
