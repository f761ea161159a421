@echo off
rem Finds Python, runs the service and keeps its exit code. Options are passed on, for example: --port 9000
rem Works from any folder; double-clicked, its window stays open when something went wrong.
setlocal
set "SCRIPT=%~dp0scripts\start_windows_production.py"
set "FITS=import sys; sys.exit(sys.version_info < (3, 11) or sys.maxsize < 2**32)"
set "PYTHON="
for %%V in (3.14 3.13 3.12 3.11 3) do if not defined PYTHON call :try py -%%V
if not defined PYTHON call :try python
if not defined PYTHON call :try python3
if defined PYTHON goto run

echo The recognizer needs Python 3.11 or newer, for 64-bit Windows, and none was found.
echo Install it from https://www.python.org/downloads/windows/ or with
echo     winget install Python.Python.3.13
echo and call this file again, in a new window.
set "CODE=9009"
goto end

:run
%PYTHON% "%SCRIPT%" %*
set "CODE=%ERRORLEVEL%"

:end
if not "%CODE%"=="0" call :stay_open
exit /b %CODE%

:try
%* -c "%FITS%" >nul 2>nul
if not errorlevel 1 set "PYTHON=%*"
exit /b 0

:stay_open
rem The Explorer starts a file with: cmd /c ""C:\path\file.bat" "
set "HOW=%CMDCMDLINE:"=%"
if "%HOW:~-1%"==" " pause
exit /b 0
